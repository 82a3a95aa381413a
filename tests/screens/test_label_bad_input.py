"""Texts and terminals that nobody would choose, on the label screen: a verdict is saved or the same pair is there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from screens.pair_view import PairView
from tests.screens.driving import drive, sees, text_of, until
from tests.screens.pty_terminal import PtyTerminal, app_command
from tests.screens.test_label import ALICE, HandClock, begin, press, verdicts
from workbench.errors import UnreadableData
from workbench.label_notes import NONE, Drafts
from workbench.pair_sets import CandidatePair, create_pairs, open_pairs
from workbench.user_settings import default_annotator
from workbench.workspace import Workspace, init

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m[/nope] `\x9b1m` **\u202eabc**"
ODD = [
    CandidatePair("same but for a blank", "two  words", "two words"),
    CandidatePair("one is empty", "", "something"),
    CandidatePair("a megabyte", "word " * 200_000, "`" * 1_000_000),
    CandidatePair(ESCAPES, ESCAPES * 3, "```\n" + ESCAPES),
    CandidatePair("", " ", "."),
]


@pytest.fixture
def odd(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    create_pairs(made, "support", ODD, {"dataset": "answers"})
    return made


def test_every_odd_pair_is_shown_compared_and_judged(odd: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        for number in range(len(ODD)):
            assert screen._sitting is not None
            assert screen._sitting.number == number + 1
            view = screen.query_one(PairView)
            await pilot.press("d")
            await until(pilot, lambda: view.marks)  # noqa: B023
            await pilot.press("space", "d")
            await until(pilot, lambda: not view.marks)  # noqa: B023
            assert not set(text_of(app)) & set("\x1b\x07\x9b\u202e")
            await press(pilot, screen, clock, "1")
        await sees(pilot, f"All {len(ODD)} pairs")

    drive(script, odd, settings=ALICE)
    assert len(verdicts(odd)) == len(ODD)


def test_equal_answers_make_no_pair(tmp_path: Path) -> None:
    made = init(tmp_path / "ws")
    with pytest.raises(UnreadableData, match="all answers are equal"):
        create_pairs(made, "support", [CandidatePair("q", "x", "x")], {"dataset": "answers"})


def test_twenty_columns_in_the_middle_of_a_pair_with_notes(odd: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        await pilot.press("f")
        await sees(pilot, "flagged")
        await until(pilot, lambda: not screen._saving)
        await pilot.resize_terminal(20, 24)
        await until(pilot, lambda: screen.too_small)
        clock.at += 5
        await pilot.press("1", "s", "u", "e", "t", "b", "d", "f")
        await pilot.pause()
        assert app.screen is screen
        assert verdicts(odd) == {}
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "flagged" in text_of(app) and screen._guard_from is not None)
        await press(pilot, screen, clock, "1")

    drive(script, odd, settings=ALICE)
    (said,) = open_pairs(odd, "support").judgments().current.values()
    assert said.flagged


def test_a_kill_while_one_types_loses_nothing_that_was_typed(tmp_path: Path) -> None:
    made = init(tmp_path / "ws")
    candidates = [CandidatePair(f"question {n}?", f"yes {n}", f"no {n}") for n in range(2)]
    create_pairs(made, "support", candidates, {"dataset": "answers"})
    command = app_command(made.root, "--station", "label", "--subject", "support")
    with PtyTerminal(command) as terminal:
        terminal.sees("question 0?")
        terminal.press("e", "e")
        terminal.sees("ctrl+o is done")
        terminal.press("Turn it ", "slowly.", sees="slowly.")
        drafts = Drafts(open_pairs(made, "support"), default_annotator())
        (pair, *_) = (one.id for one in open_pairs(made, "support").pairs())
        terminal.until(lambda: (drafts.read(pair) or NONE).better == "Turn it slowly.", "the draft, some keys behind")
        os.kill(terminal.process.pid, signal.SIGKILL)
        terminal.process.wait(60)
    with PtyTerminal(command) as terminal:
        terminal.sees("your answer")
        terminal.press("e", sees="Turn it slowly.")


@pytest.mark.slow
def test_a_link_that_dies_with_a_key_in_flight_leaves_the_verdict_or_the_pair(tmp_path: Path) -> None:
    made = init(tmp_path / "ws")
    create_pairs(made, "support", [CandidatePair(f"question {n}?", "yes", "no") for n in range(9)], {"made": "here"})
    command = app_command(made.root, "--station", "label", "--subject", "support")
    saved = []
    for delay_s in (0.0, 0.001, 0.004, 0.016):
        before = len(verdicts(made))
        with PtyTerminal(command) as terminal:
            terminal.sees(f"question {before}?")
            terminal.sees(f"{before + 1} of 9")
            terminal.settle(0.4)  # the guard is over
            terminal.send("1")
            time.sleep(delay_s)
            terminal.close()
            terminal.ends()
        saved.append(len(verdicts(made)) - before)
    assert set(saved) <= {0, 1}
    with PtyTerminal(command) as terminal:
        terminal.sees(f"question {sum(saved)}?")
    assert not open_pairs(made, "support").judgments().faults
