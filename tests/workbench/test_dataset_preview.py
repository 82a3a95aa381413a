"""The preview of a dataset: what it tells agrees with what adding then makes, and every fault has its field."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import orjson
import pytest

from sample_data import ROOT
from workbench.dataset_preview import completed_path, mapping_text, parse_mapping, preview
from workbench.dataset_store import add_dataset
from workbench.dataset_window_subject import canonical_reading, find_subject, read_row
from workbench.errors import NotFound, UsageError, WorkbenchError
from workbench.workspace import Workspace, name_problem


def _file(path: Path, rows: list[object]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


QUESTIONS: list[object] = [{"question": f"Q {n}?", "answer": f"A {n}."} for n in range(20)]


def test_a_recognised_file(tmp_path: Path) -> None:
    found = preview(str(_file(tmp_path / "my questions.jsonl", QUESTIONS)))
    assert found.can_be_added
    assert found.recognition is not None
    assert found.recognition.shape == "prompt-completion"
    assert found.mapping_words == "prompt <- question, completion <- answer"
    assert found.file.startswith("JSON lines, ")
    assert found.default_name == "my-questions"
    assert found.estimated_rows == found.read == 20
    assert [turn.text for turn in found.rows[0].reading.turns] == ["Q 0?", "A 0."]
    assert found.rows[0].place == "line 1"


def test_columns_that_fit_nothing_are_named_and_a_mapping_mends_it(tmp_path: Path) -> None:
    path = str(_file(tmp_path / "a.jsonl", [{"body": "x", "score": 1}]))
    found = preview(path)
    assert not found.can_be_added
    assert "body (text)" in found.mapping_problem
    assert "--map" not in found.mapping_problem
    assert found.columns == {"body": ["text"], "score": ["a number"]}
    mended = preview(path, "text=body")
    assert mended.can_be_added
    assert mended.recognition is not None
    assert mended.recognition.shape == "text"


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ("prompt", "write FIELD=COLUMN"),
        ('prompt="x', "quote is not closed"),
        ("promt=question", "Did you mean prompt?"),
        ("prompt=nothing", "no column of that name"),
        ("shape=nonsense", "there is no such shape"),
    ],
)
def test_a_wrong_mapping_is_told_at_the_mapping(tmp_path: Path, mapping: str, words: str) -> None:
    found = preview(str(_file(tmp_path / "a.jsonl", QUESTIONS)), mapping)
    assert words in found.mapping_problem
    assert not found.source_problem
    assert not found.can_be_added


@pytest.mark.parametrize("fault", sorted(path.name for path in (ROOT / "faults").iterdir()))
def test_the_preview_of_a_faulty_file_agrees_with_adding_it(tmp_path: Path, workspace: Workspace, fault: str) -> None:
    path = tmp_path / fault
    shutil.copyfile(ROOT / "faults" / fault, path)
    found = preview(str(path))
    try:
        dataset = add_dataset(workspace, path, "d")
    except WorkbenchError:
        assert not found.can_be_added
        return
    assert found.can_be_added, found
    assert found.recognition == dataset.info.recognition
    assert found.rejected == sum(dataset.info.rejected.values())


def test_a_source_that_cannot_be_read_is_told_at_the_source(tmp_path: Path) -> None:
    assert "does not exist" in preview(str(tmp_path / "none.jsonl")).source_problem
    assert "is a folder" in preview(str(tmp_path)).source_problem
    assert preview("hf:").source_problem
    assert preview("  ").source == ""
    hub = preview("hf:org/name")
    assert hub.can_be_added
    assert "fetched when it is added" in hub.file


def test_the_size_of_a_gzipped_file_says_nothing_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(orjson.dumps(row) + b"\n" for row in QUESTIONS)))
    assert preview(str(path)).estimated_rows == 0


def test_mappings_are_written_as_they_are_read(tmp_path: Path) -> None:
    assert parse_mapping("prompt=question, completion='my answer'") == {"prompt": "question", "completion": "my answer"}
    assert parse_mapping("") == {}
    with pytest.raises(UsageError):
        parse_mapping("=x")
    found = preview(str(_file(tmp_path / "a.jsonl", [{"my q": "x", "a": "b"}])), "prompt='my q' completion=a")
    assert found.recognition is not None
    assert parse_mapping(mapping_text(found.recognition)) == found.recognition.mapping


def test_tab_completes_as_far_as_names_agree(tmp_path: Path) -> None:
    for name in ("data-one.jsonl", "data-two.jsonl", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert completed_path(f"{tmp_path}/d") == (f"{tmp_path}/data-", ["data-one.jsonl", "data-two.jsonl"])
    assert completed_path(f"{tmp_path}/data-t") == (f"{tmp_path}/data-two.jsonl", ["data-two.jsonl"])
    assert completed_path(f"{tmp_path}/fo") == (f"{tmp_path}/folder/", ["folder/"])
    assert completed_path(f"{tmp_path}/none") == (f"{tmp_path}/none", [])
    assert completed_path("/no/such/place/x")[1] == []


def test_names(workspace: Workspace, tmp_path: Path) -> None:
    add_dataset(workspace, _file(tmp_path / "a.jsonl", QUESTIONS), "taken")
    assert name_problem(workspace, "datasets", "free") == ""
    assert "taken by a dataset" in name_problem(workspace, "datasets", "taken")
    assert "cannot name" in name_problem(workspace, "datasets", "../x")


def test_a_row_reads_as_it_is_trained_on_and_a_refused_one_says_why(workspace: Workspace, tmp_path: Path) -> None:
    rows: list[object] = [
        {"prompt": "P", "chosen": "good", "rejected": "bad"},
        {"prompt": "P", "chosen": "same", "rejected": "same"},
    ]
    add_dataset(workspace, _file(tmp_path / "a.jsonl", rows), "pairs")
    subject = find_subject(workspace, "")
    assert (subject.name, subject.shape, subject.warning) == ("pairs", "preference", "")
    reading = read_row(subject, dict(rows[0]), "line 1")  # type: ignore[call-overload]
    assert [turn.text for turn in reading.turns] == ["P"]
    assert [(name, turns[0].text) for name, turns in reading.answers] == [("chosen", "good"), ("rejected", "bad")]
    refused = read_row(subject, dict(rows[1]), "line 2")  # type: ignore[call-overload]
    assert "chosen equals rejected" in refused.reason
    assert ("chosen", "same") in refused.fields
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert "was written to" in find_subject(workspace, "pairs").warning
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(WorkbenchError, match="Put it back"):
        find_subject(workspace, "pairs")


def test_plain_texts_and_unknown_rows_read_too(workspace: Workspace) -> None:
    assert canonical_reading({"id": "x:1", "text": "whole"}).turns[0].text == "whole"
    assert canonical_reading({"prompt": "P", "a": "1", "b": "2", "tags": {"k": 1}}).fields == (("k", "1"),)
    with pytest.raises(NotFound, match="no dataset yet"):
        find_subject(workspace, "")
