"""Whether files are as they were: what a reader that looks again and again compares before it reads.

Owns the comparison: names, sizes and times of writing. It is for what this program's own processes append to or
replace; where content decides, hash it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Signature = tuple[tuple[str, int, int], ...]


def signature_of(files: Iterable[Path]) -> Signature:
    """(name, size, time of writing in ns) of each file that is there."""
    found = []
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue
        found.append((file.name, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
