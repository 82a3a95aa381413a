"""Several files as one dataset: which a pattern names, in which order, and what becomes of their bad rows."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pytest

from workbench.dataset_files import files_of_pattern, row_as_json
from workbench.dataset_preview import preview
from workbench.dataset_store import add_dataset
from workbench.errors import UnreadableData
from workbench.workspace import Workspace


def line(text: str) -> bytes:
    return orjson.dumps({"text": text})


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "part-2.jsonl").write_bytes(line("third") + b"\n{torn\n" + line("fourth"))
    (folder / "part-1.jsonl.gz").write_bytes(
        gzip.compress(b"\xef\xbb\xbf" + line("first") + b"\r\n\r\n" + line("second"))
    )
    (folder / "part-3.csv").write_text('text\n"fifth,\nand more"\n')
    (folder / "other.jsonl").write_bytes(line("not this"))
    return folder


def test_in_the_order_of_their_names_and_a_bad_line_is_told(workspace: Workspace, parts: Path) -> None:
    added = add_dataset(workspace, parts / "part-*")
    assert [row["text"] for row in added.rows()] == ["first", "second", "third", "fourth", "fifth,\nand more"]  # type: ignore[typeddict-item]
    assert (added.name, added.info.source.kind, added.info.rejected) == ("part", "files", {"invalid JSON": 1})
    assert added.info.source.origin == str(parts / "part-*")
    assert added.info.source.details["file 2"].startswith(f"{parts / 'part-2.jsonl'} ")
    (parts / "part-1.jsonl.gz").unlink()
    added.verify()  # the workspace has its own


def test_a_row_that_is_no_json_line_must_be_readable(workspace: Workspace, parts: Path) -> None:
    (parts / "part-4.csv").write_text("text,label\none\n")
    with pytest.raises(UnreadableData, match=r"part-4.csv, line 2: fewer cells than columns. Mend it"):
        add_dataset(workspace, parts / "part-*")
    (parts / "part-4.csv").write_bytes(b"\x89PNG")
    with pytest.raises(UnreadableData, match=r"part-4.csv is not a data file"):
        add_dataset(workspace, parts / "part-*")
    assert workspace.names("datasets") == []


def test_what_is_no_pattern(parts: Path) -> None:
    odd = parts / "a[1]*.jsonl"
    odd.write_bytes(line("x"))
    assert files_of_pattern(str(odd)) is None  # a file of that very name
    assert files_of_pattern(str(parts / "part-2.jsonl")) is None
    with pytest.raises(UnreadableData, match="no file has such a name"):
        files_of_pattern(str(parts / "nothing-*"))
    assert files_of_pattern(str(parts.parent / "**" / "part-?.jsonl")) == [parts / "part-2.jsonl"]


def test_the_preview_looks_at_the_first(parts: Path) -> None:
    seen = preview(str(parts / "part-*"))
    assert seen.can_be_added
    assert seen.file.endswith("the first of 3 files")
    assert preview(str(parts / "no-*")).source_problem.endswith("anything but a slash.")


def test_values_that_json_has_not() -> None:
    assert orjson.loads(row_as_json({"n": 1})) == {"n": 1}
    assert row_as_json({"n": 1 << 70}) == b'{"n": 1180591620717411303424}\n'
