"""The NVIDIA devices of this machine: which there are, whether torch can use them, and who may.

Owns the leases: one lock per device UUID in a folder that every account of the machine shares, so that no two runs land
on one device. Invariants: torch is never imported (its version and CUDA version are read from the text of its
version.py); a lease dies with the last process that holds it, so a left-over worker keeps its device to itself.
Leases are advisory: a program that does not ask for them is not kept out. Refuses to know of device memory limits.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DeviceTaken, EngineError
from engine.run.locks import HeldLock, is_held, take_lock

_ASK_S = 20.0
_FIELDS = "index,uuid,name,memory.total,memory.used,driver_version"
_WHEELS = "https://download.pytorch.org/whl"
_WHEEL_FOR_DRIVER = {12: "cu126", 13: "cu130"}
"""For each CUDA major of a driver, wheels that run on every driver of that major."""


@dataclass(frozen=True)
class Gpu:
    """One device, as nvidia-smi names it."""

    index: int
    """nvidia-smi's, which is the order on the bus; CUDA's own may differ."""
    uuid: str
    """GPU-…: stays the same whatever else is plugged in."""
    name: str
    """Model."""
    memory_total_mb: int
    """In MB of 2**20 bytes."""
    memory_used_mb: int
    """By anyone, when asked."""
    driver_version: str
    """Of the kernel driver."""


@dataclass
class HeldLocks:
    """Leases of this process."""

    uuids: tuple[str, ...]
    """Devices that are leased."""
    locks: list[HeldLock]
    """One for each."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """To be passed to children, which then hold the leases, too."""
        return tuple(lock.descriptor for lock in self.locks if lock.descriptor >= 0)

    def release(self) -> None:
        """Let go; children that were given the descriptors go on holding."""
        for lock in self.locks:
            lock.release()


def installed_gpus() -> list[Gpu]:
    """The devices, in nvidia-smi's order; none where there is no nvidia-smi or it fails."""
    text = _nvidia_smi(f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
    return [gpu for line in text.splitlines() if (gpu := _gpu_of(line)) is not None]


def driver_cuda_version() -> str | None:
    """The newest CUDA the driver can run, such as "12.4"; None where nvidia-smi does not say."""
    found = re.search(r"CUDA\s+(?:UMD\s+)?Version\s*:\s*(\d+\.\d+)", _nvidia_smi())
    return found[1] if found else None


def torch_version() -> str | None:
    """The installed torch's version, such as "2.13.0+cpu"; None where torch is not installed."""
    found = re.search(r"^__version__\s*(?::[^=]+)?=\s*['\"]([^'\"]+)['\"]", _torch_version_file(), re.MULTILINE)
    return found[1] if found else None


def torch_cuda_version() -> str | None:
    """The CUDA version the installed torch was built for, such as "12.8"; None for a CPU wheel or no torch."""
    found = re.search(r"^cuda\s*(?::[^=]+)?=\s*['\"]([^'\"]+)['\"]", _torch_version_file(), re.MULTILINE)
    return found[1] if found else None


def torch_usable() -> str | None:
    """Why torch cannot use an NVIDIA device of this machine, with the command that repairs it; None where it can."""
    gpus = installed_gpus()
    if not gpus:
        return "there is no NVIDIA device here (nvidia-smi is missing, or lists none)"
    return unusable_reason(torch_version(), torch_cuda_version(), gpus[0].driver_version, driver_cuda_version())


def unusable_reason(torch: str | None, built_for: str | None, driver: str, driver_cuda: str | None) -> str | None:
    """Why a torch of version `torch`, built for CUDA `built_for`, cannot use a driver; None where it can.

    A driver runs every wheel of its own CUDA major and of older ones.
    """
    if torch is None:
        return "torch is not installed: pip install -c constraints.txt -e ."
    wheel = f"torch=={torch.partition('+')[0]}"
    driver_major = int(driver_cuda.partition(".")[0]) if driver_cuda else None
    index = _WHEEL_FOR_DRIVER.get(driver_major) if driver_major else None
    place = f" --index-url {_WHEELS}/{index}" if index else ""
    repair = f"pip install --force-reinstall {wheel}{place}"
    if built_for is None:
        return f"torch {torch} is built for the CPU only, but the driver {driver} offers CUDA {driver_cuda}: {repair}"
    if driver_major is None or int(built_for.partition(".")[0]) <= driver_major:
        return None
    too_old = f"torch {torch} is built for CUDA {built_for}, but the driver {driver} runs CUDA {driver_cuda} at most"
    if index is None:
        return f"{too_old}: update the NVIDIA driver"
    return f"{too_old}: {repair}, or update the NVIDIA driver"


def chosen_uuids(gpus: Sequence[Gpu], visible: str) -> list[str]:
    """The devices that a value of CUDA_VISIBLE_DEVICES names: nvidia-smi indices, UUIDs or their beginnings.

    Raises EngineError for one that is not there.
    """
    chosen = []
    for word in filter(None, (part.strip() for part in visible.split(","))):
        if word == "-1":
            break
        if word.startswith("MIG-"):
            chosen.append(word)
            continue
        found = [g.uuid for g in gpus if (word.isdigit() and g.index == int(word)) or g.uuid.startswith(word)]
        if len(found) != 1:
            there = ", ".join(f"{g.index} ({g.uuid})" for g in gpus) or "none"
            raise EngineError(f"there is no GPU {word} here. There is: {there}")
        chosen.append(found[0])
    return chosen


def lease(uuids: Iterable[str]) -> HeldLocks:
    """Lease all of these devices or none. Raises DeviceTaken where one is leased already, naming its holder."""
    folder = lease_folder()
    held = HeldLocks((), [])
    for uuid in sorted(set(uuids)):
        path = _lease_path(folder, uuid)
        try:
            descriptor = _open_shared(path)
        except OSError as error:
            held.release()
            raise EngineError(f"{path} cannot be opened ({error.strerror}): GPUs cannot be leased") from error
        if not take_lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "an unknown process"
            os.close(descriptor)
            held.release()
            raise DeviceTaken(
                f"GPU {uuid} is leased by {holder}. Wait for it, name another with --gpus, or use --device cpu"
            )
        # The name of the holder helps people; the lock alone decides, so a failed write changes nothing.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} of user {os.getuid()}\n".encode(), 0)
        os.set_inheritable(descriptor, True)
        held.locks.append(HeldLock(path, descriptor))
        held.uuids = (*held.uuids, uuid)
    return held


def leased_by(uuid: str) -> str:
    """What the holder of a device's lease wrote of itself ("process 811 of user 1000"); empty where it has none."""
    path = _lease_path(lease_folder(), uuid)
    if not is_held(path):
        return ""
    try:
        with open(path, "rb") as file:
            return file.read(200).decode("utf-8", "replace").strip() or "an unknown process"
    except OSError:
        return "an unknown process"


def lease_first_free(uuids: Sequence[str], count: int = 1) -> HeldLocks:
    """Lease the first `count` devices that are free. Raises DeviceTaken, naming each holder, where too few are."""
    held = HeldLocks((), [])
    reasons = []
    for uuid in uuids:
        try:
            one = lease([uuid])
        except DeviceTaken as error:
            reasons.append(str(error).partition(". ")[0])
            continue
        held = HeldLocks((*held.uuids, *one.uuids), [*held.locks, *one.locks])
        if len(held.uuids) == count:
            return held
    held.release()
    free = f"only {len(held.uuids)} of {count} GPUs is free" if held.uuids else "no GPU is free"
    raise DeviceTaken(f"{free}: {'; '.join(reasons)}. Wait for one, or use --device cpu")


def lease_for_run(
    device: str, environment: Mapping[str, str], processes: int = 1
) -> tuple[HeldLocks | None, dict[str, str]]:
    """Lease what a run with train.device `device` will use: (leases, what its worker's environment needs to see it).

    Each process has a device of its own: those of CUDA_VISIBLE_DEVICES, numbered as nvidia-smi does; where that names
    more than are needed, or is not set, the first free ones. On the CPU, and where there is nothing to lease,
    (None, {}). Raises EngineError where a device is taken or is not there, or there are too few.
    """
    if not needs_lease(device):
        return None, {}
    gpus = installed_gpus()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    candidates = list(dict.fromkeys([gpu.uuid for gpu in gpus] if visible is None else chosen_uuids(gpus, visible)))
    if len(candidates) < processes:
        named = f"CUDA_VISIBLE_DEVICES={visible} names" if visible is not None else "nvidia-smi finds"
        raise EngineError(
            f"the run trains with {processes} processes, each on a GPU of its own, but {named} {len(candidates)}. Name "
            "others with --gpus, lower train.processes, or use --device cpu"
        )
    named_exactly = visible is not None and len(candidates) == processes
    leases = lease(candidates) if named_exactly else lease_first_free(candidates, processes)
    shown = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(leases.uuids)}
    if "CUBLAS_WORKSPACE_CONFIG" not in environment:
        # cuBLAS is deterministic only with a fixed workspace, which it reads before torch can set it.
        shown["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return leases, shown


def needs_lease(device: str) -> bool:
    """Whether a run with train.device `device` leases GPUs on this machine."""
    return device != "cpu" and bool(installed_gpus()) and (device != "auto" or torch_usable() is None)


def lease_folder() -> Path:
    """The folder of the leases, shared by all accounts where the machine has a place for that."""
    private = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [Path("/run/lock"), *([Path(private)] if private else []), Path("/tmp")]
    for place in places:
        folder = place / "workbench"
        try:
            try:
                folder.mkdir(mode=0o1777)
                folder.chmod(0o1777)
            except FileExistsError:
                pass
            # Anyone can make this folder first: it must be a folder, and one that we can make files in.
            if stat.S_ISDIR(os.lstat(folder).st_mode) and os.access(folder, os.W_OK | os.X_OK):
                return folder
        except OSError:
            continue
    raise EngineError(f"GPUs cannot be leased: none of {', '.join(map(str, places))} can be written. Use --device cpu")


def _lease_path(folder: Path, uuid: str) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', uuid)}.lock"


def _open_shared(path: Path) -> int:
    """Open a file that any account may have made. Linux refuses O_CREAT on others' files in a sticky folder."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with suppress(FileNotFoundError):
        return _regular(os.open(path, os.O_RDWR | flags))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
    except FileExistsError:
        return _regular(os.open(path, os.O_RDWR | flags))
    os.fchmod(descriptor, 0o666)
    return descriptor


def _regular(descriptor: int) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(17, "it is no regular file")
    return descriptor


def _gpu_of(line: str) -> Gpu | None:
    """A row of nvidia-smi. A figure that it does not know ("[N/A]") is 0."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 6 or not cells[0].isdigit():
        return None
    total, used = (int(cell) if cell.isdigit() else 0 for cell in cells[3:5])
    return Gpu(int(cells[0]), cells[1], cells[2], total, used, cells[5])


def _nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi prints; nothing where it is missing, fails or hangs."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", *arguments],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return answer.stdout


def _torch_version_file() -> str:
    from importlib.util import find_spec

    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        return Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
