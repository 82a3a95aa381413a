"""What was worked out about a file, kept in the person's cache under a hash of all that it depends on.

Owns the key (the file's sha256, how it is read, what was asked, the code that answers) and the files, which may be
deleted at any time. Invariant: an answer is the one that working it out again would give, or it is not found.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from engine.run.user_cache import user_cache_folder
from workbench.terminal_output import without_nonfinite

_UNUSED_S = 30 * 86_400


def cached(what: Mapping[str, Any], work: Callable[[], dict[str, Any]], *, again: bool = False) -> dict[str, Any]:
    """What `work` gives, from the cache where it is there; `again` works it out in any case.

    `what` says on what the answer depends. Where the cache cannot be written the answer is given all the same.
    """
    folder = _folder()
    file = folder / f"{_key(what)}.json"
    if not again and (found := _read(file)) is not None:
        return found
    made: dict[str, Any] = orjson.loads(orjson.dumps(without_nonfinite(work())))
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_unused(folder)
        new = folder / f".new-{secrets.token_hex(8)}"
        new.write_bytes(orjson.dumps(made))
        os.replace(new, file)
    return made


def _folder() -> Path:
    return user_cache_folder() / "analyses"


def _key(what: Mapping[str, Any]) -> str:
    written = orjson.dumps({**what, "code": _code_sha256()}, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(written).hexdigest()


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = orjson.loads(file.read_bytes())
        os.utime(file)
    except (OSError, orjson.JSONDecodeError):
        return None
    return found


def _remove_unused(folder: Path) -> None:
    now = time.time()
    for file in folder.iterdir():
        with suppress(OSError):
            if now - file.stat().st_mtime > _UNUSED_S:
                file.unlink()


@cache
def _code_sha256() -> str:
    """Of this package and the engine's reading of rows: a change to either makes every answer anew."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in (*sorted(here.glob("*.py")), *sorted((here.parent / "engine" / "data").glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()
