"""What a pair set asks: declared in its own file, valid or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import NotFound, UsageError, WorkbenchError
from workbench.label_form import LONGEST_GUIDELINES, Criterion, LabelForm, form_of
from workbench.pair_sets import CandidatePair, create_pairs, open_pairs
from workbench.workspace import Workspace


def test_a_set_carries_its_form_in_its_own_file(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "g.md").write_text("Be fair.\n", "utf-8")
    form = form_of("5", ["too long", "made up"], ["helpful=Which helps more?", "honest"], str(tmp_path / "g.md"))
    create_pairs(workspace, "p", [CandidatePair("q", "x", "y")], {"made": "here"}, form=form)
    again = open_pairs(workspace, "p").form
    assert again == form
    assert (again.scale, again.most, again.guidelines) == ("five-way", 2, "Be fair.")
    assert again.questions == (Criterion("helpful", "Which helps more?"), Criterion("honest"))
    assert LabelForm.from_toml(form.to_toml()) == form


def test_a_set_of_an_older_program_asks_one_three_way_question(workspace: Workspace) -> None:
    made = create_pairs(workspace, "p", [CandidatePair("q", "x", "y")], {"made": "here"})
    file = made.folder / "pairs.toml"
    old = [line for line in file.read_text("utf-8").splitlines() if line.split(" = ")[0] not in
           ("tags", "criteria", "guidelines")]  # fmt: skip
    file.write_text("\n".join(old) + "\n", "utf-8")
    form = open_pairs(workspace, "p").form
    assert (form.scale, form.tags, [one.name for one in form.questions]) == ("three-way", (), ["overall"])


def test_a_set_that_declares_nonsense_is_refused_by_its_file(workspace: Workspace) -> None:
    made = create_pairs(workspace, "p", [CandidatePair("q", "x", "y")], {"made": "here"})
    file = made.folder / "pairs.toml"
    file.write_text(file.read_text("utf-8").replace('"three-way"', '"seven-way"'), "utf-8")
    with pytest.raises(WorkbenchError, match=r"pairs\.toml: scale = 'seven-way': must be three-way or five-way"):
        _ = open_pairs(workspace, "p").form


@pytest.mark.parametrize(
    ("scale", "tags", "criteria", "message"),
    [
        ("4", [], [], "must be 3 .* or 5"),
        ("3", ["x", "x"], [], "each once"),
        ("3", ["a\x1b[2J"], [], "no control character"),
        ("3", ["a,b"], [], "no comma"),
        ("3", [" "], [], "a word or a few"),
        ("3", ["x" * 41], [], "at most 40"),
        ("3", [], ["a", "a"], "name each once"),
        ("3", [], ["../x"], "cannot name"),
        ("3", [], ["a=" + "w" * 201], "more than 200"),
        ("3", [], [f"c{n}" for n in range(13)], "at most 12"),
    ],
)
def test_a_form_that_cannot_be(scale: str, tags: list[str], criteria: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        form_of(scale, tags, criteria)


def test_guidelines_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No such file"):
        form_of(guidelines=str(tmp_path / "none.md"))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        form_of(guidelines=str(tmp_path / "latin"))
    (tmp_path / "long").write_text("x" * (LONGEST_GUIDELINES + 1))
    with pytest.raises(UsageError, match="at most 65,536"):
        form_of(guidelines=str(tmp_path / "long"))
