"""The row that lint found is the row that Inspect opens, whatever the file is."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from workbench.dataset_store import add_dataset
from workbench.dataset_window import open_window
from workbench.duckdb_connection import write_parquet
from workbench.lint_rows import row_source
from workbench.row_address import row_address, row_at, side_of
from workbench.workspace import Workspace

ROWS = [{"prompt": f"question {n}\nof two lines", "completion": f"answer {n}"} for n in range(1500)]
LINES = [orjson.dumps(row) for row in ROWS]


def jsonl(path: Path) -> None:
    path.write_bytes(b"\n \n".join([b"", *LINES[:700], b"{torn", b"[1]", *LINES[700:]]) + b"\n")


def zipped(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\n\n".join([*LINES[:3], b"{torn", *LINES[3:]])))


def as_json(path: Path) -> None:
    path.write_bytes(orjson.dumps([*ROWS[:5], 7, *ROWS[5:]]))


def as_csv(path: Path) -> None:
    cells = [f'"{row["prompt"]}",{row["completion"]}' for row in ROWS]
    path.write_text("\n".join(["prompt,completion", *cells[:9], "too,many,cells", *cells[9:]]) + "\n")


def parquet(path: Path) -> None:
    write_parquet(path, ROWS, {"prompt": "VARCHAR", "completion": "VARCHAR"})


@pytest.mark.parametrize(
    ("name", "make"),
    [("d.jsonl", jsonl), ("d.jsonl.gz", zipped), ("d.json", as_json), ("d.csv", as_csv), ("d.parquet", parquet)],
)
def test_of_every_kind_of_file(workspace: Workspace, name: str, make: Callable[[Path], None]) -> None:
    make(workspace.root / name)
    dataset = add_dataset(workspace, workspace.root / name, "d")
    window = open_window(workspace.root / name, dataset.info.source.file_kind)
    try:
        for one in row_source(workspace, "d").read():
            if one.index % 331 < 2 and one.raw is not None:
                place = row_address("d", one.number, one.ordinal).partition("#")[2]
                assert window.row(row_at(window, place, lambda: None)) == one.raw
        assert row_at(window, "99999.99999", lambda: None) == -1
        assert row_at(window, "", lambda: None) == -1
        assert row_at(window, "x.y", lambda: None) == -1
    finally:
        window.close()


def test_the_side_of_a_preference_set() -> None:
    assert row_address("v1", 3, 2, "eval") == "v1#3.2.eval"
    assert (side_of("3.2.eval"), side_of("3.2"), side_of("")) == ("eval", "train", "train")
