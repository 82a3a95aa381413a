"""How much room copies of rows may take in the person's cache folder, and which of them go first.

Owns the bound. Two folders hold files that were made of datasets so that these read faster: `rows` (Parquet copies of
what can only be read in order) and `native` (DuckDB files). Together they take at most MOST_BYTES, and never the last
LEAST_FREE_BYTES of the disk; what was opened longest ago goes first. Invariant: all of them can be made again, so any
may go at any time: who has one open keeps what it has open.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from engine.run.user_cache import user_cache_folder
from workbench.errors import disk_full

MOST_BYTES = 20_000_000_000
LEAST_FREE_BYTES = 1_000_000_000
UNUSED_S = 30 * 86_400
"""A copy that nobody opened for this long is removed when the next one is made."""
HALF_MADE_S = 3600
"""What is being made is written to more often than that; an older one is of a process that was killed."""
NEW = ".new-"
"""The names of what is being made begin so."""


def copies_folder() -> Path:
    """Where Parquet copies lie: $XDG_CACHE_HOME/workbench/rows; safe to delete."""
    return user_cache_folder() / "rows"


def native_folder() -> Path:
    """Where native caches lie: $XDG_CACHE_HOME/workbench/native; safe to delete."""
    return user_cache_folder() / "native"


def make_room(wanted: int) -> bool:
    """Remove what is old, then what was used longest ago, until `wanted` more bytes fit; whether they do."""
    now = time.time()
    kept: list[tuple[float, int, Path]] = []
    for folder in (copies_folder(), native_folder()):
        with suppress(FileNotFoundError):
            for file in folder.iterdir():
                with suppress(OSError):
                    found = file.stat()
                    used = max(found.st_atime, found.st_mtime)
                    if now - used > (HALF_MADE_S if file.name.startswith(NEW) else UNUSED_S):
                        remove(file)
                    else:
                        kept.append((used, found.st_size, file))
    taken = sum(size for _, size, _ in kept)
    for _, size, file in sorted(kept):
        if taken + wanted <= MOST_BYTES or wanted > MOST_BYTES:
            break
        if not file.name.startswith(NEW):
            remove(file)
            taken -= size
    return taken + wanted <= MOST_BYTES and free_bytes() - wanted >= LEAST_FREE_BYTES


def free_bytes() -> int:
    """What the disk of the cache folder has left for this account."""
    place = user_cache_folder()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_space(folder: Path, doing: str) -> None:
    """DiskFull where less is left than every program needs."""
    if free_bytes() < LEAST_FREE_BYTES:
        raise disk_full(doing, folder)


def remove(file: Path) -> None:
    """Remove a copy; one that is gone already is no fault."""
    with suppress(OSError):
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink()
