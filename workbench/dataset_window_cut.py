"""A window on a Parquet file with texts too long for this process: a copy in which they are cut, made by a child.

Owns the copy, which lies in the person's cache like those of files that can only be read in order. A text of more than
TEXT_CHARACTERS keeps its beginning, and says behind it how long it is; everything else is as it was. Decoding one text
of 200 MB takes DuckDB 800 MB, whatever of it is asked for, so that is left to a process that ends with it. Texts inside
lists and structs are not cut.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from workbench.cache_room import NEW, copies_folder, make_room, remove
from workbench.dataset_window import LONGEST_CELL, TEXT_CHARACTERS, identity_of
from workbench.dataset_window_parquet import ParquetWindow
from workbench.errors import UnreadableData
from workbench.file_trial import run_child, try_file


def cut_window(path: Path) -> ParquetWindow:
    """The rows of `path` with texts of at most TEXT_CHARACTERS; UnreadableData where the copy cannot be made."""
    identity = identity_of(path)
    note = f"texts of more than {TEXT_CHARACTERS:,} characters are cut, and say how long they are"
    return ParquetWindow(_copy_of(path), original=identity, note=note)


def readable_here(path: Path) -> Path:
    """A Parquet file that this process can read row by row: `path`, or the copy of it where a text is too long."""
    return _copy_of(path) if try_file(path) > LONGEST_CELL else path


def _copy_of(path: Path) -> Path:
    identity = identity_of(path)
    copy = copies_folder() / f"{identity.key('cut 1')}.parquet"
    if not copy.is_file():
        _make(path, identity.bytes, copy)
    return copy


def _make(path: Path, size: int, copy: Path) -> None:
    new = copy.with_name(f"{NEW}{secrets.token_hex(8)}.parquet")
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if not make_room(size) or run_child(path, "cut", str(new)).returncode != 0:
            raise UnreadableData(
                f"{path} holds texts that are too long to be shown, and no copy in which they are cut can be made in "
                f"{copy.parent}. Free some space there, or select the other columns: workbench sql"
            )
        os.replace(new, copy)
    finally:
        remove(new)
