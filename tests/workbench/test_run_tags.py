"""Words on runs: put on, taken away, kept beside run.toml, and found by a pattern."""

from __future__ import annotations

import json

import pytest

from tests.workbench.run_folders import make_run
from workbench.cli import main
from workbench.run_board import BoardReader, describe_entry
from workbench.run_list import Run, find_run, summarise
from workbench.run_tags import LONGEST_TAG, MOST_TAGS, TAGS_FILE, change_tags, set_tags, tags_of, typed_tags
from workbench.several_runs import SeveralRuns
from workbench.workspace import Workspace

ID, OTHER = "1130-dpo-one-aaa", "1130-dpo-two-bbb"


@pytest.fixture
def run(workspace: Workspace) -> Run:
    make_run(workspace, OTHER)
    make_run(workspace, ID)
    return find_run(workspace, ID)


def test_they_are_put_on_and_taken_away_and_run_toml_stays(run: Run) -> None:
    before = run.folder.config_path.read_bytes()
    assert change_tags(run, ["keep", "paper"]) == ("keep", "paper")
    assert change_tags(run, ["best", "keep"], ["paper"]) == ("keep", "best") == tags_of(run.folder)
    assert run.folder.config_path.read_bytes() == before
    assert set_tags(run, []) == () == tags_of(run.folder)
    assert not (run.folder.path / TAGS_FILE).exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [("-x", "can be no tag"), ("a/b", "can be no tag"), ("\x1b[31m", "can be no tag"),
     ("ü" * (LONGEST_TAG + 1), "32 at most"),
     (" ".join(f"t{place}" for place in range(MOST_TAGS + 1)), "17 tags: a run has 16")],
)  # fmt: skip
def test_what_can_be_no_tag_is_said_and_nothing_is_written(
    run: Run, typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "tag", "--workspace", str(run.workspace.root), "--", ID, *typed.split()]) == 2
    assert said in capsys.readouterr().err
    assert tags_of(run.folder) == ()


def test_as_a_person_types_them() -> None:
    assert typed_tags("  #keep, über_9  v1.2 keep ") == ("keep", "über_9", "v1.2")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"{torn", ()), (b"[]", ()), (b'{"schema":9,"tags":"keep"}', ()), (b'{"schema":1}', ()),
        (b'{"schema":2,"new":1,"tags":["keep",7,"a b","\\u001b[31m",null,"keep","ok"]}', ("keep", "ok")),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_what_can_be_read_of_it(run: Run, content: bytes, found: tuple[str, ...]) -> None:
    (run.folder.path / TAGS_FILE).write_bytes(content)
    assert tags_of(run.folder) == found == summarise(run).tags
    assert change_tags(run, ["new"]) == (*found, "new")


def test_the_command_the_lists_and_the_pattern(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(run.workspace.root)]
    assert main(["runs", "tag", ID, "keep", "paper", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "run": ID, "tags": ["keep", "paper"]}
    assert main(["runs", "tag", ID, "--remove", "paper", *where]) == 0
    assert capsys.readouterr().err == f"{ID}: keep\n"
    assert main(["runs", "tag", ID, *where]) == 0
    assert capsys.readouterr().out == "keep\n"
    assert main(["runs", "tag", ID, "--remove", "paper", *where]) == 2
    assert "has no tag 'paper'. It has: keep" in capsys.readouterr().err
    assert main(["runs", "ls", *where, "--json"]) == 0
    listed = {one["id"]: one["tags"] for one in json.loads(capsys.readouterr().out)["runs"]}
    assert listed == {ID: ["keep"], OTHER: []}
    assert main(["runs", "ls", *where]) == 0
    assert f"{ID} #keep" in capsys.readouterr().out
    assert (
        dict(describe_entry(next(one for one in BoardReader(run.workspace).look() if one.id == ID)))["tags"] == "keep"
    )

    several = SeveralRuns(run.workspace, "/tag=keep")
    assert [one.run.id for one in several.look().runs] == [ID]
    change_tags(find_run(run.workspace, OTHER), ["keep-too"])
    assert [one.run.id for one in several.look().runs] == [ID, OTHER], "tags may change while they are looked at"
