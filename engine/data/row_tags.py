"""The tags of frozen rows: what a row says of itself that no model reads.

Owns the mapping from a row's id, by the rule of the examples, to its tags. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.data.reading import json_rows


def read_tags(file: Path) -> dict[str, Mapping[str, Any]]:
    """Row id -> tags, of the rows that have any; a row without an id goes by its line number, from 1.

    Raises DataError naming a line that is no row.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in json_rows(file):
        tags = row.get("tags")
        if isinstance(tags, dict) and tags:
            found[str(row.get("id", number))] = tags
    return found
