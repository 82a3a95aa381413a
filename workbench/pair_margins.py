"""The margins by which a model tells the answers of each pair apart, for showing the hardest pairs first.

Owns pairs/NAME/margins.json: pair → margin (score of a less score of b), with the model that gave them. Invariant: the
file is replaced in one step; margins of pairs that the set has not are ignored by who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from engine.run.durable_files import write_atomically
from workbench.errors import WorkbenchError, explain_os_errors
from workbench.pair_sets import PairSet

SCHEMA = 1
_FILE = "margins.json"


def read_margins(pair_set: PairSet) -> dict[str, float]:
    """Pair → margin; empty where no model has ranked the set. WorkbenchError names a damaged file."""
    path = pair_set.folder / _FILE
    try:
        content = orjson.loads(path.read_bytes())
        return {str(pair): float(margin) for pair, margin in content["margins"].items()}
    except FileNotFoundError:
        return {}
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkbenchError(f"{path}: damaged ({error}). Remove it, and rank the pairs again.") from error


def write_margins(pair_set: PairSet, margins: Mapping[str, float], model: str) -> None:
    """Keep the margins that a model gave, in the place of earlier ones."""
    pair_set.workspace.require_writable()
    path = pair_set.folder / _FILE
    with explain_os_errors(f"keeping the margins of {pair_set.name}", path):
        write_atomically(path, orjson.dumps({"schema": SCHEMA, "model": model, "margins": dict(margins)}))
