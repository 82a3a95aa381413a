"""Pairs: the sets and how far they are, made of a dataset, judged by the rule, frozen."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from sample_data import ROOT
from screens.row_list import RowList
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from workbench.dataset_store import add_dataset, open_dataset
from workbench.pair_list import PairsReader
from workbench.pair_sets import CandidatePair, create_pairs, open_pairs, pairs_from_dataset
from workbench.preferences import open_preference_set
from workbench.steps import Steps
from workbench.user_settings import UserSettings
from workbench.workspace import Workspace, init

ALICE = UserSettings(annotator="alice")
CREATED = "2026-11-24T10:00:00+00:00"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr("workbench.pair_sets.now", lambda: CREATED)
    made = init(tmp_path / "ws")
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"q{n}", "a": f"yes {n}", "b": f"no {n}"}) + "\n" for n in range(12)))
    add_dataset(made, file, "answers", None, copy=True)
    support = pairs_from_dataset(made, "support", open_dataset(made, "answers"))
    ids = [pair.id for pair in support.pairs()]
    with support.journal("alice") as journal:
        for n, pair in enumerate(ids[:6]):
            journal.append(pair, "a" if n % 2 else "b", origin="screen", order="ab")
    with support.journal("rule") as journal:
        journal.append_many(journal.prepare(pair, "a", origin="rule") for pair in ids[:8])
    models = {"prompts": {"dataset": "answers"}, "models": [{"source": "run:old"}, {"source": "run:new"}]}
    candidates = [CandidatePair(f"q{n}", f"x{n}", f"y{n}", "run:old", "run:new") for n in range(3)]
    create_pairs(made, "duel", candidates, models, kind="arena")
    return made


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_picture(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "arena/duel")
        await sees(pilot, "rule (synthetic)")
        await check_golden("pairs", pilot)
        assert "run:" not in text_of(app), "an arena is judged blind"

    drive(script, workspace, size=size, station="pairs", settings=ALICE)


def test_the_counts(workspace: Workspace) -> None:
    support, duel = PairsReader(workspace, "alice").read()
    assert (support.subject, support.pairs, support.mine, support.judged, support.open) == ("support", 12, 6, 8, 4)
    assert support.sources == "rule (synthetic) 8, by hand 6"
    assert (duel.subject, duel.made_from, duel.open) == ("arena/duel", "2 models · prompts of answers", 3)


def test_a_damaged_set_says_so_and_hides_nothing(workspace: Workspace) -> None:
    (workspace.pairs / "support" / "pairs.toml").write_text("= [/nope] \x1b[2J")

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "✗ ")
        await sees(pilot, "arena/duel")
        app.screen.query_one("#list", RowList).move_to("support")
        await pilot.press("f", "R")
        assert app.screen.NAME == "pairs"

    drive(script, workspace, station="pairs", settings=ALICE)


def test_enter_labels_the_set_under_the_cursor(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "arena/duel")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.NAME == "label")
        await sees(pilot, "support · alice · blind")
        await sees(pilot, "7 of 12")

    drive(script, workspace, station="pairs", settings=ALICE)


def test_m_makes_a_pair_set_of_a_dataset(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "arena/duel")
        await pilot.press("m")
        await sees(pilot, "12 pairs at most")
        await pilot.press("w")
        await until(pilot, lambda: [one.key for one in app.screen.query("#list").results(RowList)] == ["answers"])

    drive(script, workspace, station="pairs", settings=ALICE)
    assert open_pairs(workspace, "answers").info.rows == 12


def test_from_another_screen_it_asks_for_the_name_at_once(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "A pair set of the dataset answers.")
        await pilot.press("escape")
        await sees(pilot, "arena/duel")

    drive(script, workspace, station="pairs", subject="from:answers", settings=ALICE)


def test_f_freezes_and_t_leads_to_training(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "arena/duel")
        await pilot.press("f")
        await sees(pilot, "into a preference set")
        await pilot.press("enter")
        await sees(pilot, "froze support-prefs; t trains on it")
        app.screen.query_one("#list", RowList).move_to("arena/duel")
        await pilot.press("f")
        await sees(pilot, "nothing is judged here yet")

    drive(script, workspace, station="pairs", settings=ALICE)
    counts = open_preference_set(workspace, "support-prefs").info.counts
    assert counts["train"] + counts["eval"] > 0


def test_the_rule_refuses_other_data_and_asks_before_it_judges_the_sample(workspace: Workspace) -> None:
    add_dataset(workspace, ROOT / "data" / "heldout_pairs.jsonl", "sample", None)
    pairs_from_dataset(workspace, "sample", open_dataset(workspace, "sample"))

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "arena/duel")
        chooser = app.screen.query_one("#list", RowList)
        chooser.move_to("support")
        await pilot.press("R")
        await sees(pilot, "knows only the sample data")
        chooser.move_to("sample")
        await pilot.press("R")
        await sees(pilot, "Let the sample rule judge sample?")
        await sees(pilot, "synthetic")
        await pilot.press("escape")
        await pilot.press("R")
        await sees(pilot, "Let the sample rule judge sample?")
        await pilot.press("R")
        await sees(pilot, "verdicts of the sample rule (synthetic)")

    drive(script, workspace, station="pairs", settings=ALICE)
    made = open_pairs(workspace, "sample")
    by_rule = [one for one in made.judgments().current.values() if one.origin == "rule"]
    assert len(by_rule) == made.info.rows


@pytest.mark.parametrize("what", ["making", "freezing", "the rule"])
def test_esc_ends_what_takes_long_and_nothing_of_it_is_left(
    workspace: Workspace, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    add = Steps.add

    def slowly(steps: Steps, number: int) -> None:
        add(steps, number)
        go_on.wait(20)
        add(steps, 0)

    monkeypatch.setattr(Steps, "add", slowly)
    monkeypatch.setattr("workbench.pair_words.of_sample_domain", lambda pair_set: True)
    keys = {"making": ["enter"], "freezing": ["f", "enter"], "the rule": ["R", "R"]}[what]

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "A pair set of" if what == "making" else "arena/duel")
        for key in keys:
            shown = app.screen
            await pilot.press(key)
            await until(pilot, lambda shown=shown: app.screen is not shown, f"what {key} leads to")
        await sees(pilot, "left · esc cancels")  # how far it is, and the time left
        await pilot.press("escape")
        await sees(pilot, "ending …")
        go_on.set()
        await sees(pilot, f"cancelled: {what}")

    before = {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}
    subject = "from:answers" if what == "making" else ""
    drive(script, workspace, station="pairs", subject=subject, settings=ALICE)
    assert {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()} == before
