"""Which model is this: a hash of what a model folder's files say, remembered so that a launch need not work it out.

A folder's hash is the sha256 over (name, sha256 of the content) of every file that decides what the model does:
weights, config, tokenizer, adapter and reward head. Neither its path nor a README matters. Torch-free.

A file's hash is remembered in the user's cache folder under its path, with size, modification time in nanoseconds,
inode and device. All of them have to agree; a file that changed in the last seconds is hashed and not remembered, since
a second change within the clock's step would go unseen.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from engine.errors import ModelError
from engine.run.durable_files import write_atomically
from engine.run.user_cache import user_cache_folder

COUNTED = (
    "*.safetensors", "*.safetensors.index.json",
    "config.json", "generation_config.json", "adapter_config.json", "reward_head.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
REMEMBERED_FROM_BYTES = 1 << 20
"""Smaller files are hashed faster than their entry is read."""
SETTLED_S = 3.0
_CHUNK_BYTES = 1 << 22

Progress = Callable[[int, int], None]
"""Told (bytes hashed, bytes to hash)."""


def folder_sha256(folder: Path, cache_folder: Path | None = None, progress: Progress | None = None) -> str:
    """Hash of a model or adapter folder. Raises ModelError where it holds nothing that could be a model."""
    try:
        files = sorted({file for pattern in COUNTED for file in folder.glob(pattern) if file.is_file()})
        sizes = [file.stat().st_size for file in files]
        if not files:
            raise ModelError(f"{folder}: no model here: expected config.json, a tokenizer and safetensors weights")
        whole = hashlib.sha256()
        before = 0
        for file, size in zip(files, sizes, strict=True):
            tell = None if progress is None else _shifted(progress, before, sum(sizes))
            whole.update(f"{file.name}\0{file_sha256(file, cache_folder, tell)}\n".encode())
            before += size
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror}): check its permissions") from error
    return whole.hexdigest()


def file_sha256(file: Path, cache_folder: Path | None = None, progress: Progress | None = None) -> str:
    """Hash of a file's content, remembered in `cache_folder` (by default the user's) where it is large."""
    found = file.stat()
    known = remembered_sha256(file, cache_folder)
    if known is not None:
        return known
    digest = _hash(file, found.st_size, progress)
    settled = abs(time.time() - found.st_mtime) > SETTLED_S and _identity(file) == _identity(file, found)
    if settled and found.st_size >= REMEMBERED_FROM_BYTES:
        _remember(_entry(file, cache_folder), _identity(file, found), digest)
    return digest


def remembered_sha256(file: Path, cache_folder: Path | None = None) -> str | None:
    """The hash of a file's content if it is remembered and the file has not changed since; reads none of it."""
    try:
        known = orjson.loads(_entry(file, cache_folder).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(known, dict) or known.get("file") != _identity(file):
        return None
    digest = known.get("sha256")
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def _entry(file: Path, cache_folder: Path | None) -> Path:
    path = str(file.resolve()).encode(errors="surrogateescape")
    return (cache_folder or user_cache_folder()) / "sha256" / f"{hashlib.sha256(path).hexdigest()[:32]}.json"


def _identity(file: Path, found: os.stat_result | None = None) -> list[str | int]:
    """What has to agree for a remembered hash to hold."""
    found = found or file.stat()
    path = str(file.resolve()).encode(errors="surrogateescape").decode(errors="replace")
    return [path, found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev]


def _hash(file: Path, size: int, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    done = 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()


def _remember(entry: Path, identity: list[str | int], digest: str) -> None:
    """A cache that cannot be written costs time, nothing else."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(entry, orjson.dumps({"file": identity, "sha256": digest}), durable=False)
    except OSError:
        return


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)
