"""What this machine has and what it lacks for the whole loop, each lacking thing with its remedy.

Owns the list of checks. Invariants: nothing is changed, nothing is downloaded, torch is not imported (its version and
the CUDA version of its wheel are read from files), and no secret is read further than that it exists.
"""

from __future__ import annotations

import hashlib
import locale
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from engine.run.durable_files import free_megabytes
from workbench.errors import WorkbenchError

State = Literal["ok", "note", "lacks"]
PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "datasets", "duckdb", "pytz", "gguf", "orjson", "tomli-w"),
    *("jinja2", "safetensors", "tokenizers", "numpy"),
)
OLDEST_PYTHON, FIRST_UNTESTED_PYTHON = (3, 11), (3, 14)
ENOUGH_DISK_MB = 2_000
ENOUGH_MEMORY_MB = 3_000
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ."


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    """"lacks" makes the exit code 1; "note" is worth knowing and needs nothing done."""
    found: str
    remedy: str = ""
    """What to do; empty where there is nothing to do."""

    def as_json(self) -> dict[str, str]:
        """The check as plain text fields."""
        return {"name": self.name, "state": self.state, "found": self.found, "remedy": self.remedy}


def examine(workspace: str | None = None, environment: Mapping[str, str] = os.environ) -> list[Check]:
    """All checks, in the order in which a person would fix what they lack."""
    checks: list[Callable[[], Check]] = [
        check_python,
        check_packages,
        check_processor_and_memory,
        check_torch,
        check_gpus,
        lambda: check_workspace(workspace),
        lambda: check_disk(workspace),
        lambda: check_terminal(environment),
        lambda: check_text_encoding(environment),
        lambda: check_hub(environment),
        check_sample_data,
    ]
    return [check() for check in checks]


def check_python() -> Check:
    """A Python that the tests run on."""
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if not OLDEST_PYTHON <= sys.version_info[:2] < FIRST_UNTESTED_PYTHON:
        return Check("python", "lacks", found, "use Python 3.11, 3.12 or 3.13 for the virtual environment")
    return Check("python", "ok", found)


def check_packages() -> Check:
    """Every dependency is installed; none is imported."""
    missing, there = [], []
    for name in PACKAGES:
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "lacks", f"not installed: {', '.join(missing)}", INSTALL)
    return Check("packages", "ok", f"all {len(there)} are installed")


def check_processor_and_memory() -> Check:
    """Cores that this process may use and memory that is free now."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, free = _memory_mb()
    found = f"{cores} CPU core{'s' * (cores != 1)}, {total:,} MB memory, {free:,} MB of it free"
    if 0 < free < ENOUGH_MEMORY_MB:
        remedy = f"the demo wants {ENOUGH_MEMORY_MB:,} MB free; end other programs, or use a larger machine"
        return Check("cpu and memory", "lacks", found, remedy)
    return Check("cpu and memory", "ok", found)


def check_torch() -> Check:
    """The torch wheel: its version and the CUDA it was built for."""
    from engine.run.gpus import torch_cuda_version

    try:
        installed = version("torch")
    except PackageNotFoundError:
        return Check("torch", "lacks", "not installed", INSTALL)
    cuda = torch_cuda_version()
    return Check("torch", "ok", f"{installed}, built for {f'CUDA {cuda}' if cuda else 'the CPU only'}")


def check_gpus() -> Check:
    """NVIDIA devices, and whether this torch can use them."""
    from engine.run.gpus import driver_cuda_version, installed_gpus, torch_usable

    gpus = installed_gpus()
    if not gpus:
        return Check("gpus", "note", "no NVIDIA device: everything runs on the CPU")
    found = "; ".join(f"{gpu.index}: {gpu.name}, {gpu.memory_total_mb:,} MB" for gpu in gpus)
    found += f"; driver {gpus[0].driver_version} (CUDA {driver_cuda_version() or 'unknown'})"
    reason = torch_usable()
    if reason:
        return Check("gpus", "lacks", found, reason)
    return Check("gpus", "ok", found)


def check_workspace(path: str | None) -> Check:
    """The workspace that commands here would use."""
    from workbench.workspace import open_workspace

    try:
        workspace = open_workspace(path)
    except WorkbenchError as error:
        return Check("workspace", "lacks" if path else "note", str(error))
    if workspace.read_only_reason:
        return Check("workspace", "lacks", f"{workspace.root} is read-only", workspace.read_only_reason)
    return Check("workspace", "ok", str(workspace.root))


def check_disk(path: str | None) -> Check:
    """Free space where the workspace is or would be, and where temporary files go."""
    import tempfile

    from workbench.workspace import open_workspace

    try:
        here = open_workspace(path).root
    except WorkbenchError:
        here = Path(path).absolute() if path else Path.cwd()
    places: dict[str, int] = {}
    devices: set[int] = set()
    for place in (here, Path(tempfile.gettempdir())):
        device = _device_of(place)
        if device not in devices:
            devices.add(device)
            places[str(place)] = free_megabytes(place)
    found = ", ".join(f"{free:,} MB free at {place}" for place, free in places.items())
    if min(places.values()) < ENOUGH_DISK_MB:
        remedy = f"free some space: a run of a small model wants {ENOUGH_DISK_MB:,} MB for its checkpoints"
        return Check("disk", "lacks", found, remedy)
    return Check("disk", "ok", found)


def _device_of(place: Path) -> int:
    """The file system that a place lies on, or would lie on."""
    return next(folder for folder in (place, *place.parents) if folder.exists()).stat().st_dev


def check_terminal(environment: Mapping[str, str]) -> Check:
    """What stdout is."""
    if not sys.stdout.isatty():
        return Check("terminal", "note", "stdout is not a terminal")
    size = shutil.get_terminal_size()
    return Check("terminal", "ok", f"{environment.get('TERM', 'TERM is not set')}, {size.columns}x{size.lines}")


def check_text_encoding(environment: Mapping[str, str]) -> Check:
    """Whether text other than ASCII can be shown and named."""
    encodings = {locale.getpreferredencoding(False), sys.getfilesystemencoding(), sys.stdout.encoding or "utf-8"}
    others = sorted(name for name in encodings if name.lower().replace("-", "") != "utf8")
    if others:
        return Check("text", "lacks", f"the locale's encoding is {', '.join(others)}", "export LANG=C.UTF-8")
    return Check("text", "ok", f"UTF-8 (LANG={environment.get('LANG', 'not set')})")


def check_hub(environment: Mapping[str, str]) -> Check:
    """Where `hf:` models would come from; a token is looked for and never read out."""
    home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    token_file = Path(environment.get("HF_TOKEN_PATH") or home / "token")
    token = "a token" if environment.get("HF_TOKEN") or token_file.is_file() else "no token"
    offline = environment.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    found = f"cache at {home}{'' if home.is_dir() else ' (not made yet)'}, {token}{', HF_HUB_OFFLINE' * offline}"
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(nearest, os.W_OK):
        return Check("hub", "lacks", f"{found}; it cannot be written", "set HF_HOME to a folder of your own")
    return Check("hub", "ok", found)


def check_sample_data() -> Check:
    """The sample files are there and are what their SHA256SUMS say."""
    from sample_data import ROOT

    remedy = "reinstall, or make them again: python -m sample_data.make_data && python -m sample_data.make_model"
    sums = ROOT / "SHA256SUMS"
    if not sums.is_file():
        return Check("sample data", "lacks", f"{sums} is missing", remedy)
    wrong = []
    lines = sums.read_text(encoding="ascii").splitlines()
    for line in lines:
        digest, name = line.split("  ", 1)
        file = ROOT / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            wrong.append(name)
    if not (ROOT / "model" / "config.json").is_file():
        wrong.append("model/config.json")
    if wrong:
        return Check("sample data", "lacks", f"missing or changed: {', '.join(wrong[:5])}", remedy)
    return Check("sample data", "ok", f"{len(lines)} files and the sample model")


def _memory_mb() -> tuple[int, int]:
    """(total, available) in MB of 2^20 bytes, as /proc/meminfo has them; zeros where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kilobytes.get("MemTotal", 0) // 1024, kilobytes.get("MemAvailable", 0) // 1024
