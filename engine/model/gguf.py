"""A GGUF file as a model folder: `python -m engine.model.gguf FILE CACHE_ROOT`.

The file's weights are de-quantised once into bf16 safetensors beside config, generation config, tokenizer and chat
template, in CACHE_ROOT/gguf-SHA256-VERSION. What is then trained is the de-quantised model: the rounding of its
quantisation stays in it.

Invariants: a folder under its final name is complete (written aside, synced, renamed); one file is converted by one
process at a time, others wait for it; space is checked before anything is written. torch and transformers are
imported only where something has to be converted. Progress is JSON lines on stdout, the last one {"folder"}; an error
is one line on stderr and exit code 1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import EngineError, ModelError
from engine.model.fingerprint import file_sha256, remembered_sha256
from engine.model.gguf_header import GgufHeader, read_gguf_header
from engine.run.durable_files import fsync_folder
from engine.run.locks import hold
from engine.run.safe_text import safe

VERSION = 1
"""Of what this program writes; folders of other versions are left alone and not used."""
STORED_BYTES = 2
"""Per parameter, as bf16."""
SPARE_BYTES = 256 * 2**20
"""Room for tokenizer files, and so that the disk is not filled to its last block."""
SHARD_SIZE = "4GB"
STAGES = ("reading the header", "hashing", "loading", "de-quantising", "writing")

Progress = Callable[[int, int, str], None]
"""Told (done, total, what)."""


def resolve_gguf(file: Path, cache_root: Path, progress: Progress | None = None) -> Path:
    """The model folder of a GGUF file, converted in a child process if it is not in the cache. Raises ModelError.

    This process loads neither torch nor the weights.
    """
    tell = progress or (lambda done, total, what: None)
    cached = _cached(file, cache_root, tell)
    if cached.is_dir():
        return cached
    environment = {**os.environ, "PYTHONPATH": _own_root()}
    command = [sys.executable, "-P", "-m", "engine.model.gguf", str(file.absolute()), str(cache_root.absolute())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            for line in child.stdout:
                said = json.loads(line)
                if "done" in said:
                    tell(said["done"], said["total"], said["what"])
        except BaseException:
            child.terminate()
            raise
        complaint = child.stderr.read().strip().splitlines()
    if child.returncode == -9:
        raise ModelError(f"{file}: the conversion was killed; it needs about {_memory_gb(file):.1f} GB of memory")
    if child.returncode != 0:
        raise ModelError(complaint[-1] if complaint else f"{file}: the conversion failed with code {child.returncode}")
    return cached


def main(argv: list[str] | None = None) -> int:
    """Convert a file unless it is in the cache, and print its folder."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 2:
        print("usage: python -m engine.model.gguf FILE CACHE_ROOT", file=sys.stderr)
        return 2
    try:
        folder = convert_into_cache(Path(arguments[0]), Path(arguments[1]), _print_progress)
    except EngineError as error:
        print(safe(str(error)), file=sys.stderr)
        return 1
    print(json.dumps({"folder": str(folder)}), flush=True)
    return 0


def convert_into_cache(file: Path, cache_root: Path, progress: Progress) -> Path:
    """The model folder of a GGUF file, converted in this process if it is not in the cache. Raises ModelError."""
    folder = _cached(file, cache_root, progress)
    if folder.is_dir():
        return folder
    header = read_gguf_header(file)
    try:
        cache_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(cache_root / f".{folder.name}.lock", progress):
            if folder.is_dir():
                return folder
            partial = cache_root / f".{folder.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            _check_space(file, header, cache_root)
            partial.mkdir(mode=0o700)
            try:
                _convert(file, header, partial, progress)
                _sync(partial)
                partial.rename(folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            fsync_folder(cache_root)
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written ({error.strerror or error}), {_free_mb(cache_root)} MB free: make room or "
            "set XDG_CACHE_HOME to a larger disk"
        ) from error
    return folder


def _cached(file: Path, cache_root: Path, progress: Progress) -> Path:
    """Where the model of this very file is, or is to be."""
    try:
        digest = remembered_sha256(file) if file.is_file() else None
        if digest is None:
            progress(0, len(STAGES), STAGES[0])
            read_gguf_header(file)
            progress(1, len(STAGES), STAGES[1])
            digest = file_sha256(file)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}): check its permissions") from error
    return cache_root / f"gguf-{digest[:32]}-{VERSION}"


def _check_space(file: Path, header: GgufHeader, cache_root: Path) -> None:
    needed = header.parameters * STORED_BYTES + SPARE_BYTES
    free = shutil.disk_usage(cache_root).free
    if free < needed:
        raise ModelError(
            f"{file}: its {header.parameters / 1e6:,.0f} M parameters need {needed / 2**20:,.0f} MB as bf16, and "
            f"{cache_root} has {free / 2**20:,.0f} MB free: make room or set XDG_CACHE_HOME to a larger disk"
        )


def _convert(file: Path, header: GgufHeader, into: Path, progress: Progress) -> None:
    """De-quantise `file` into the folder `into`."""
    # The library draws a bar on stderr, where only an error belongs.
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        progress(2, len(STAGES), STAGES[2])
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **source)
        progress(3, len(STAGES), STAGES[3])
        loaded, found = AutoModelForCausalLM.from_pretrained(
            str(file.parent), dtype=torch.bfloat16, output_loading_info=True, **source
        )
    except MemoryError as error:
        raise ModelError(f"{file}: out of memory: about {_memory_gb(file):.1f} GB are needed") from error
    except Exception as error:  # whatever a stranger's file provokes inside transformers
        raise ModelError(
            f"{file}: transformers cannot read this GGUF file (architecture {header.architecture or 'unnamed'}): "
            f"{' '.join(str(error).split())[:300] or type(error).__name__}. Use the model's safetensors instead"
        ) from error
    if found["missing_keys"]:
        raise ModelError(
            f"{file}: {len(found['missing_keys'])} weights are missing, such as {min(found['missing_keys'])}"
        )
    progress(4, len(STAGES), STAGES[4])
    _without_quantisation(loaded, tokenizer).save_pretrained(str(into), max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(str(into))


def _without_quantisation(loaded: Any, tokenizer: Any) -> Any:
    """The same weights in a model that never was quantised: one loaded from GGUF refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM

    described = loaded.config.to_dict()
    described.pop("quantization_config", None)
    config = type(loaded.config).from_dict(described)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token_id = getattr(tokenizer, name)
        if token_id is not None:
            setattr(config, name, token_id)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    # Tied weights stay one tensor, and are saved once.
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.generation_config = loaded.generation_config
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(config, name, None))
    return model


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_folder(folder)


@contextmanager
def _alone(lock: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other process converts the same file."""
    while (held := hold(lock)) is None:
        progress(2, len(STAGES), "waiting for another process that converts this file")
        time.sleep(0.5)
    try:
        yield
    finally:
        held.release()


def _memory_gb(file: Path) -> float:
    """What a conversion holds at its peak: two copies in bf16 and the file's pages."""
    return (read_gguf_header(file).parameters * 2 * STORED_BYTES + file.stat().st_size) / 2**30 + 1.0


def _free_mb(place: Path) -> int:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free >> 20


def _own_root() -> str:
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))


def _print_progress(done: int, total: int, what: str) -> None:
    print(json.dumps({"done": done, "total": total, "what": what}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
