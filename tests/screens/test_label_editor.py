"""A better answer: written beside the two, on the disk as it is typed, saved with the verdict, chosen when frozen."""

from __future__ import annotations

from pathlib import Path

import pytest

from screens.answer_editor import AnswerEditor, plain
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, until
from tests.screens.test_label import ALICE, HandClock, begin, press, verdicts
from workbench.label_notes import Drafts
from workbench.pair_sets import CandidatePair, create_pairs, open_pairs
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    candidates = [
        CandidatePair(f"Why does wheel {n} wobble?", f"It is {n} the rim.\x1b[2J", f"Ask {n} shop.") for n in range(3)
    ]
    create_pairs(made, "support", candidates, {"dataset": "answers"})
    return made


def draft(workspace: Workspace) -> str:
    """What a killed program would have left."""
    drafts = Drafts(open_pairs(workspace, "support"), "alice")
    found = [notes.better for notes in map(drafts.read, drafts.pairs()) if notes]
    return found[0] if found else ""


async def editing(app, pilot) -> AnswerEditor:  # type: ignore[no-untyped-def]
    await until(pilot, lambda: isinstance(app.screen, AnswerEditor) and app.focused is not None)
    return app.screen  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_written_from_nothing_kept_as_typed_and_saved_with_the_verdict(
    workspace: Workspace, size: tuple[int, int]
) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        await pilot.press("e")
        await sees(pilot, "beginning with")
        await pilot.press("e")
        await editing(app, pilot)
        await pilot.press(*"Feel 1", "enter", "tab", *"spoke.")
        await until(pilot, lambda: draft(workspace) == "Feel 1\n    spoke.", "the draft is on the disk")
        await check_golden("label-editor", pilot)
        await pilot.press("ctrl+o")
        await sees(pilot, "your answer goes with your verdict")
        await sees(pilot, "alice · your answer · blind")
        await press(pilot, screen, clock, "0")

    drive(script, workspace, size=size, settings=ALICE)
    (said,) = open_pairs(workspace, "support").judgments().current.values()
    assert (said.verdict, said.better) == ("both_bad", "Feel 1\n    spoke.")
    assert draft(workspace) == ""


def test_esc_asks_where_it_was_changed_and_a_draft_is_opened_again(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        await pilot.press("e", "1")
        editor = await editing(app, pilot)
        assert "\x1b" not in editor.text
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen, "nothing was changed, nothing is asked")
        assert draft(workspace) == ""
        await pilot.press("e", "1")
        await editing(app, pilot)
        await pilot.press(*" Or", "escape")
        await sees(pilot, "You have changed the answer.")
        await pilot.press("escape", "escape")
        await sees(pilot, "You have changed the answer.")
        await pilot.press("k")
        await sees(pilot, "your answer goes with your verdict")
        await until(pilot, lambda: not screen._saving)
        kept = draft(workspace)
        assert kept.endswith(" Or")
        await pilot.press("e")
        await editing(app, pilot)
        await pilot.press(*" not", "escape")
        await sees(pilot, "You have changed the answer.")
        await pilot.press("D")
        await until(pilot, lambda: app.screen is screen and not screen._saving)
        assert draft(workspace) == kept, "what was there before is there again"
        assert verdicts(workspace) == {}

    drive(script, workspace, settings=ALICE)


def test_an_answer_as_it_was_given_is_no_better_one(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        await pilot.press("e", "2")
        await editing(app, pilot)
        await pilot.press("x", "backspace", "ctrl+s")
        await until(pilot, lambda: app.screen is screen and not screen._saving)
        assert screen._sitting is not None
        assert screen._sitting.notes.better == ""
        assert draft(workspace) == ""

    drive(script, workspace, settings=ALICE)


def test_a_disk_that_takes_nothing_says_so_while_one_types(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await begin(app, pilot, HandClock())
        await pilot.press("e", "e")
        await editing(app, pilot)
        with monkeypatch.context() as patch:
            patch.setattr("workbench.label_notes.write_atomically", full)
            await pilot.press("a")
            await sees(pilot, "NOT KEPT on the disk")
        await pilot.press("b")
        await until(pilot, lambda: draft(workspace) == "ab")
        await sees(pilot, "ctrl+o is done")

    drive(script, workspace, settings=ALICE)


def test_a_text_to_edit_does_nothing_to_a_terminal_and_keeps_its_signs() -> None:
    assert plain("a\tb\r\nc\x1b[2J 👩\u200d🔧\x9b") == "a\tb\nc␛[2J 👩\u200d🔧<U+009B>"
