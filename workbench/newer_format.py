"""Whether a run was written by a newer version of this program, and what to say of it.

Owns that sentence. Invariant: what is understood of such a run is shown, and nothing that reads its settings goes by
halves: its run.toml is refused as a whole. Reads the heads of files, nothing more.
"""

from __future__ import annotations

import re

from engine.run import config_schema, status
from engine.run.folder import RunFolder
from engine.run.status import Status

_SCHEMA = re.compile(rb"^schema = (\d{1,9})\s*$", re.MULTILINE)
_HEAD_BYTES = 512


def newer_words(folder: RunFolder, found: Status | None) -> str:
    """A sentence, or nothing where the run is of this version or an older one. `found` is its status."""
    formats = {
        "run.toml": (_schema_of_config(folder), config_schema.SCHEMA),
        "status.json": (found.schema if found else 0, status.SCHEMA),
    }
    newer = [
        f"{name} has format {has}, this one reads {reads}" for name, (has, reads) in formats.items() if has > reads
    ]
    if not newer:
        return ""
    return (
        "written by a newer version of this program: what is understood of it is shown; update the program to see all "
        f"and to go on with it ({'; '.join(newer)})"
    )


def _schema_of_config(folder: RunFolder) -> int:
    """Of run.toml, where it stands first; 0 where there is none."""
    try:
        with open(folder.config_path, "rb") as stream:
            found = _SCHEMA.search(stream.read(_HEAD_BYTES))
    except OSError:
        return 0
    return int(found[1]) if found else 0
