"""Where this person's cache is: converted models, copies of rows, hashes; what is in it can be rebuilt at any time."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache_folder() -> Path:
    """$XDG_CACHE_HOME/workbench, else ~/.cache/workbench."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "workbench"
