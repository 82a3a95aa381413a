"""Lint on the screen: the findings, the rows of one, the row itself in Inspect, and a new dataset without them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.grid import Grid
from screens.modals import AskText
from screens.row_list import RowList
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench.test_lint import TOKEN, pairs
from workbench.dataset_store import add_dataset, open_dataset
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.preferences import freeze
from workbench.row_address import row_address
from workbench.workspace import Workspace, init


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    rows = pairs(rows=400)
    rows[6] = rows[2]
    rows[300] = {**rows[300], "chosen": rows[300]["chosen"] + f" {TOKEN}"}
    rows[301] = {**rows[301], "chosen": " "}
    rows[302] = {**rows[302], "prompt": rows[302]["prompt"] + "\x1b[2J[/nope]"}
    lines = [orjson.dumps(row) + b"\n" for row in rows]
    file = made.root / "support.jsonl"
    file.write_bytes(b"".join([b"\n", *lines[:3], b"\n{torn\n", *lines[3:]]))
    add_dataset(made, file, "support")
    (made.root / "held.jsonl").write_bytes(b"".join(lines[10:12]))
    add_dataset(made, made.root / "held.jsonl", "held-out")
    return made


def rows_of(app: WorkbenchApp) -> RowList:
    return app.screen.query_one("#rows", RowList)


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_findings_rows_and_the_row_itself(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await pilot.press("c")
        await sees(pilot, "401 rows, 399 usable · 5 findings")
        await check_golden("lint", pilot)
        if size == WIDE:
            return
        await pilot.press("G", "enter")
        await until(pilot, lambda: app.focused is rows_of(app))
        await sees(pilot, "GitHub token")
        await pilot.press("enter")
        await sees(pilot, "line 304")  # behind blank lines and a torn one
        await until(pilot, lambda: app.screen.query_one(Grid).row_number == 301)
        await sees(pilot, TOKEN[:9])
        await pilot.press("escape")
        await until(pilot, lambda: app.focused is app.screen.query_one(Grid))
        await pilot.press("escape")
        await sees(pilot, "5 findings")
        await pilot.press("escape")
        assert app.focused is app.screen.query_one("#findings")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.NAME == "datasets")

    drive(script, workspace, size=size, station="datasets", subject="support")


@pytest.mark.slow
def test_what_leaks_and_what_a_tokenizer_cuts_are_asked_for_by_keys(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "5 findings")
        await pilot.press("a")
        await sees(pilot, "Compare with which datasets")
        await pilot.press(*"held", "enter")
        await sees(pilot, "'held' is none of: held-out")
        await pilot.press(*"-out", "enter")
        await sees(pilot, "against held-out")
        await sees(pilot, "leaked-rows")
        await pilot.press("m")
        await sees(pilot, "By whose tokens")
        await pilot.press("end", *" max_length=20", "enter")
        await sees(pilot, "tokens of sample, max_length 20")
        await sees(pilot, "no-room")
        await check_golden("lint-against", pilot)
        app.screen.query_one("#findings", RowList).move_to("leaked-rows")
        await pilot.press("x", "enter")
        await until(pilot, lambda: "support-clean: 397 rows" in app.last_told)
        await pilot.press("a", "backspace", "enter")
        await until(pilot, lambda: "against" not in text_of(app).splitlines()[0])

    drive(script, workspace, size=WIDE, station="lint", subject="support")


def test_what_was_found_before_is_there_at_once_and_r_looks_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import workbench.lint

    looked: list[str] = []
    look = workbench.lint.lint
    monkeypatch.setattr(
        workbench.lint, "lint", lambda *names, **options: looked.append(names[1]) or look(*names, **options)
    )

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "5 findings")
        first = app.screen
        app.open("lint", "support")
        await until(pilot, lambda: app.screen is not first and bool(app.screen.query("#findings")))
        await until(pilot, lambda: bool(app.screen.query_one("#findings", RowList).rows))
        assert looked == ["support"]
        await pilot.press("r")
        await until(pilot, lambda: looked == ["support", "support"])

    drive(script, workspace, station="lint", subject="support")


def test_a_new_dataset_without_them(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "5 findings")
        app.screen.query_one("#findings", RowList).move_to("secrets")
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press("enter")
        await until(pilot, lambda: "support-clean: 398 rows" in app.last_told)
        assert open_dataset(workspace, "support").info.rows == 399

    drive(script, workspace, station="lint", subject="support")


def test_both_sides_of_a_preference_set(workspace: Workspace) -> None:
    rows = [CandidatePair(row["prompt"], row["chosen"], row["rejected"]) for row in pairs(seed=5)]
    made = create_pairs(workspace, "p", rows, {})
    with made.journal("alice") as journal:
        journal.append_many([journal.prepare(one.id, "a", origin="screen") for one in made.pairs()])
    held_out = freeze(workspace, "p", "v1").info.counts["eval"]

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, f"v1 (train) · {len(rows) - held_out} rows")
        await sees(pilot, "nothing was found")
        assert "the whole dataset" not in text_of(app)
        await pilot.press("x")
        await pilot.press("t")
        await sees(pilot, f"v1 (eval) · {held_out} rows")
        app.open("inspect", row_address("v1", 2, 1, "eval"))
        await sees(pilot, "v1 · eval")
        await until(pilot, lambda: app.screen.query_one(Grid).row_number == 1)

    drive(script, workspace, station="lint", subject="v1")


def test_a_dataset_that_is_gone_is_told(workspace: Workspace) -> None:
    (workspace.root / "support.jsonl").unlink()

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "Put it back")

    drive(script, workspace, station="lint", subject="support")
