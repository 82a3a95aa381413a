"""The errors a person can see, drawn in one place.

    WorkbenchError            exit code 1: what was asked for could not be done
    ├── UsageError            exit code 2: the request itself is wrong (a bad name, an unknown option)
    ├── NotFound              no such workspace, dataset, pair set, file …
    ├── NameTaken             the name is occupied; nothing is ever overwritten
    ├── ReadOnly              this workspace may be read but not written, and why
    ├── UnreadableData        a data file is missing, empty, of another kind, or damaged
    ├── SourceChanged         a file is no longer the one that was recorded (both hashes are named)
    └── DiskFull              no space left; names the place and how much is free

Every message says what was found, where, what was expected and what to do. A message may quote text from strangers
(file names, cells, column names): whoever writes it to a terminal passes it through `engine.run.safe_text.safe`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.run.durable_files import free_megabytes

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class WorkbenchError(Exception):
    """Something that was asked for could not be done; the message is one line for a person."""

    exit_code = 1


class UsageError(WorkbenchError):
    """The request itself is wrong; doing it again unchanged can never work."""

    exit_code = 2


class NotFound(WorkbenchError):
    """A thing that was named does not exist."""


class NameTaken(WorkbenchError):
    """A name is occupied. Nothing in a workspace is overwritten."""


class ReadOnly(WorkbenchError):
    """The workspace may be read but not written."""


class UnreadableData(WorkbenchError):
    """A data file is missing, empty, of another kind, or damaged beyond single rows."""


class SourceChanged(WorkbenchError):
    """A file no longer has the content that was recorded when it was added or frozen."""


class DiskFull(WorkbenchError):
    """The disk (or a quota, or a file-size limit) is full."""


def some_of(names: Sequence[str], most: int = 10) -> str:
    """Names in a row for a message, at most so many: "a, b and 3 more"; "none yet" where there are none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none yet"


def disk_full(doing: str, place: Path) -> DiskFull:
    """The one message for a full disk."""
    return DiskFull(
        f"no space left while {doing}: {free_megabytes(place)} MB free at {place}. "
        "Nothing half-made was kept; free some space (or raise the quota or file-size limit) and run it again."
    )


def is_out_of_space(error: BaseException | None) -> bool:
    """Whether `error`, or what caused it, says that the disk, a quota or a file-size limit is full.

    DuckDB raises its own IOException, and a layer below us may wrap the OSError: both are looked through.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        text = str(error)
        if any(os.strerror(number) in text for number in _NO_SPACE) or "no space left" in text.lower():
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explain_os_errors(doing: str, place: Path) -> Iterator[None]:
    """Turns a full disk and other operating-system errors inside the block into a WorkbenchError that teaches."""
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:
        if is_out_of_space(error):
            raise disk_full(doing, place) from error
        if isinstance(error, OSError):
            raise WorkbenchError(
                f"could not finish {doing}: {error.strerror or error} ({error.filename or place})"
            ) from error
        raise
