"""A folder that `datasets.load_from_disk` opens, written by a child: `datasets` loads more than a command should.

Owns the child's request (Parquet files by split, and the folder). Invariant: the folder did not exist; the caller moves
it to its place when it is whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from workbench.child_programs import run_program


def save_dataset(splits: Mapping[str, Path], folder: Path) -> None:
    """Make `folder` of Parquet files, one for each split. WorkbenchError where the child fails."""
    request = json.dumps({"splits": {name: str(path) for name, path in splits.items()}, "folder": str(folder)})
    run_program("workbench.saved_dataset", [request], what="saving", quiet=True, details=False)


def main(arguments: list[str]) -> int:
    """The child."""
    import datasets

    datasets.disable_progress_bars()
    request = json.loads(arguments[0])
    made = {name: datasets.Dataset.from_parquet(path, cache_dir=f"{request['folder']}.cache")
            for name, path in request["splits"].items()}  # fmt: skip
    datasets.DatasetDict(made).save_to_disk(request["folder"])
    print(json.dumps({"rows": {name: len(one) for name, one in made.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
