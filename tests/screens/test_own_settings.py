"""A person's own settings: what is wrong with them is told, and what is right works all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.key_settings import keymap_of, problems_of
from tests.screens.driving import drive, sees, until
from workbench.user_settings import UserSettings, read_settings
from workbench.workspace import Workspace, init


@pytest.mark.parametrize(
    ("name", "keys", "problem"),
    [
        ("label.tie", "x", ""),
        ("grid.down", "ctrl+j, J", ""),
        ("help", "?", ""),
        ("label.ties", "t", "no binding is called 'label.ties'; did you mean label.tie?"),
        ("x", "t", "no binding is called 'x'; ? says the names."),
        ("label.tie", "control+t", "'control+t' is no key."),
        ("label.tie", "", "no key is given."),
        ("label.tie", "u", "label.tie takes u from label.undo; give that one another."),
        ("label.tie", "?", "label.tie takes ? from help; give that one another."),
    ],
)
def test_what_a_key_may_be_called_and_be(name: str, keys: str, problem: str) -> None:
    found = problems_of({name: keys})
    assert len(found) == bool(problem)
    assert not problem or problem in found[0]


def test_two_that_change_places_take_nothing_from_each_other() -> None:
    assert problems_of({"label.left": "2", "label.right": "1"}) == []


def test_a_sign_is_a_key_and_blanks_are_none() -> None:
    assert keymap_of({"a": "?, t", "b": " "}) == {"a": "question_mark,t"}


def test_what_is_wrong_is_told_once_and_the_rest_works(tmp_path: Path) -> None:
    workspace: Workspace = init(tmp_path / "ws")

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "no binding is called")
        await pilot.press("plus")
        await until(pilot, lambda: getattr(app.screen, "NAME", "") == "runs")

    drive(script, workspace, settings=UserSettings(keys={"home.run": "x", "home.runs": "+"}))


def test_a_setting_that_is_none_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('them = "workbench-light"\nqqq = 1\nannotator = "alice"\n')
    found = read_settings(path)
    assert found.annotator == "alice"
    assert found.problems == (
        "no setting is called 'them'; did you mean theme?",
        "no setting is called 'qqq'; there are: theme, annotator, keys, curves, url_keys.",
    )
