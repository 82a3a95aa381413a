"""The launch form by keys: choose, edit, see what is wrong and what it costs, start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.run import detached_start
from screens.app import WorkbenchApp
from screens.launch_options import OptionPage
from screens.launch_rows import FieldInput, FormRows
from screens.modals import Reading
from screens.row_list import RowList
from tests.screens.driving import SIZE, WIDE, burst, check_golden, drive, sees, text_of, until
from tests.workbench.run_folders import make_run
from workbench.dataset_store import add_dataset
from workbench.launch_draft import Draft
from workbench.run_list import find_run
from workbench.workspace import Workspace, init


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("workbench.run_preview.free_megabytes", lambda place: 50_000)
    monkeypatch.setattr("workbench.run_cost.free_memory", lambda cuda: 16_000_000_000)
    monkeypatch.setattr("workbench.time_guess.usable_cores", lambda: 2)
    monkeypatch.setattr("workbench.time_guess.core_flops_a_second", lambda: 25e9)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Demonstrations and preferences."""
    workspace = init(tmp_path / "ws")
    files: dict[str, list[dict[str, Any]]] = {
        "better": [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(40)],
        "demos": [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(60)],
    }
    for name, lines in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        add_dataset(workspace, tmp_path / f"{name}.jsonl")
    return workspace


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What would have been started: (run, whether it is queued)."""
    calls: list[tuple[str, bool]] = []

    def start(run_dir: Path, env: object = None, *, queued: bool = False) -> None:
        calls.append((Path(run_dir).name, queued))

    monkeypatch.setattr(detached_start, "start_detached", start)
    return calls


def draft(app: WorkbenchApp) -> Draft:
    found: Draft = app.screen._draft  # type: ignore[attr-defined]
    assert found is not None
    return found


def row(app: WorkbenchApp, key: str) -> tuple[str, ...]:
    return next(
        tuple(cell.strip() for cell in row.cells) for row in app.screen.query_one(FormRows).rows if row.key == key
    )


async def ready(app: WorkbenchApp, pilot: Pilot[int]) -> None:
    await until(pilot, lambda: len(listed(app)) > 5 and bool(app.screen.query(FormRows)), "the form")


def listed(app: WorkbenchApp) -> list[str]:
    """Keys of the list that is shown; none while a screen is being made."""
    return [row.key for rows in app.screen.query(RowList).results(RowList) for row in rows.rows]


def at(app: WorkbenchApp, key: str) -> None:
    app.screen.query_one(FormRows).move_to(key)


class TestForm:
    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_it_begins_with_what_the_workspace_is_ripe_for(self, workspace: Workspace, size: tuple[int, int]) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            assert (draft(app).method, draft(app).data) == ("dpo", "better")
            await sees(pilot, "estimates: memory" if size == SIZE else "what it would cost")
            await check_golden("launch", pilot)

        drive(script, workspace, size=size, station="launch")

    def test_a_number_is_edited_in_place_and_judged_while_it_is_typed(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await sees(pilot, "estimates: memory")
            at(app, "optim.lr")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.focused, FieldInput))
            app.screen.query_one(FieldInput).value = ""
            await pilot.press("-", "1")
            await sees(pilot, "▲ must be > 0 (1e-6 to 5e-4")
            await check_golden("launch-problem", pilot)
            await pilot.press("backspace", "backspace", "1", "e", "-", "4", "enter")
            await until(pilot, lambda: draft(app).value("optim.lr") == "1e-4")
            assert row(app, "optim.lr") == ("learning rate", "1e-4", "set; default for dpo: 5e-05")
            await pilot.press("backspace")
            await until(pilot, lambda: row(app, "optim.lr")[2] == "default for dpo")

        drive(script, workspace, station="launch")

    def test_esc_leaves_a_value_as_it_was(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            at(app, "name")
            await pilot.press("enter", "w", "q", "escape")
            await until(pilot, lambda: isinstance(app.focused, FormRows))
            assert draft(app).name == ""
            assert app.screen.TITLE == "launch"

        drive(script, workspace, station="launch")

    def test_what_is_typed_ahead_after_enter_goes_into_the_field(
        self, workspace: Workspace, started: list[tuple[str, bool]]
    ) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            at(app, "name")
            # A burst, as a slow link delivers it: all keys are there before the first one is carried out.
            for key in ("enter", "w", "a", "x", "backspace", "W", "enter"):
                app.simulate_key(key)
            await until(pilot, lambda: draft(app).name == "waW", "the name")
            assert started == []

        drive(script, workspace, station="launch")

    def test_tab_takes_the_value_and_goes_on(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            at(app, "name")
            await pilot.press("enter", "m", "e", "tab")
            await until(pilot, lambda: draft(app).name == "me")
            assert app.screen.query_one(FormRows).key == "dpo.beta"

        drive(script, workspace, station="launch")

    def test_choices_are_gone_through_and_data_follows_the_method(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await pilot.press("h", "h")
            await until(pilot, lambda: draft(app).method == "sft")
            at(app, "data")
            await pilot.press("l")
            await until(pilot, lambda: draft(app).data == "demos")
            await sees(pilot, "launch · sft · sample · demos")

        drive(script, workspace, station="launch")

    def test_several_data_with_weights_by_keys(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await pilot.press("h", "h")
            await until(pilot, lambda: draft(app).method == "sft")
            at(app, "data")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, OptionPage))
            await pilot.press(*"bett", "tab", *":0.75 ", *"dem", "tab", *":0.25")
            await sees(pilot, "better:0.75 demos:0.25")
            await pilot.press("enter")
            await until(pilot, lambda: draft(app).data == "better:0.75 demos:0.25")
            await sees(pilot, "better 75 %")
            assert "data.weights_by" in listed(app)
            # What was put together is edited, not begun anew.
            at(app, "data")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, OptionPage))
            await pilot.press(*["backspace"] * 4, "0", "enter")
            await until(pilot, lambda: draft(app).data == "better:0.75 demos:0")
            await sees(pilot, "demos:0: the weight must be a number above 0")

        drive(script, workspace, station="launch")

    def test_what_is_typed_takes_the_place_of_one_reward_model(self, workspace: Workspace) -> None:
        run = make_run(workspace, "1124-reward-mine-k3f", checkpoints=(4,))
        (run.checkpoint_path(4) / "reward_head.safetensors").write_bytes(b"x")

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            while draft(app).method != "ppo":
                await pilot.press("h")
            at(app, "reward_model")
            for typed in ("run:first", "run:other"):
                burst(app, "enter", *typed, "enter")
                await until(pilot, lambda: draft(app).reward_model == typed)  # noqa: B023

        drive(script, workspace, station="launch")

    def test_a_list_is_chosen_from_or_typed_into(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-mine-k3f", checkpoints=(4,))

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            assert draft(app).model == "run:1124-sft-mine-k3f"
            at(app, "model")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, OptionPage))
            await pilot.press(*"samp")
            await until(pilot, lambda: listed(app) == ["sample"])
            await pilot.press("enter")
            await until(pilot, lambda: draft(app).model == "sample")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, OptionPage))
            await pilot.press(*"./gone", "enter")
            await until(pilot, lambda: draft(app).model == "./gone")
            await until(pilot, lambda: row(app, "model")[2].startswith("▲ ./gone: no such folder"))

        drive(script, workspace, station="launch")

    def test_all_settings_and_finding_one(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await pilot.press("slash")
            await until(pilot, lambda: bool(app.screen.query("#filter")) and len(listed(app)) > 30)
            await pilot.press(*"threads", "enter")
            await until(pilot, lambda: listed(app) == ["train.threads"])
            await sees(pilot, "CPU threads, shared out over the processes")
            await pilot.press("escape")
            await until(pilot, lambda: len(listed(app)) > 30)
            await pilot.press("a")
            await until(pilot, lambda: len(listed(app)) < 12)

        drive(script, workspace, station="launch")

    def test_what_was_chosen_is_there_when_one_comes_back(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            at(app, "train.epochs")
            await pilot.press("enter", "backspace", "backspace", "backspace", "3", "enter")
            await until(pilot, lambda: draft(app).value("train.epochs") == "3")
            app.go("datasets")
            await sees(pilot, "demos")
            await sees(pilot, "datasets")
            app.go("launch")
            await ready(app, pilot)
            assert draft(app).value("train.epochs") == "3"

        drive(script, workspace, station="launch")


class TestStart:
    def start(self, workspace: Workspace, key: str, then: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await pilot.press(key)
            await until(pilot, lambda: then == app.screen.TITLE, then)

        drive(script, workspace, station="launch", subject="demos")

    def test_w_makes_the_run_and_starts_it(self, workspace: Workspace, started: list[tuple[str, bool]]) -> None:
        self.start(workspace, "w", "curves")
        run = find_run(workspace, "-")
        assert started == [(run.id, False)]
        assert (run.config().run.method, run.config().data.names) == ("sft", ("demos",))

    def test_W_queues_it(self, workspace: Workspace, started: list[tuple[str, bool]]) -> None:
        self.start(workspace, "W", "runs")
        assert started == [(find_run(workspace, "-").id, True)]

    def test_a_fault_forbids_it_and_has_the_cursor(self, workspace: Workspace, started: list[tuple[str, bool]]) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            app.screen.put_value("train.seed", "-4")  # type: ignore[attr-defined]
            await pilot.press("w")
            await sees(pilot, "train.seed: must be at least 0")
            assert app.screen.query_one(FormRows).key == "train.seed"
            assert started == []
            assert workspace.names("runs") == []

        drive(script, workspace, station="launch")

    def test_the_resolved_config_is_shown_whole(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await pilot.press("p")
            await until(pilot, lambda: isinstance(app.screen, Reading))
            await sees(pilot, "[run]")
            assert "# default for dpo" in text_of(app)
            assert workspace.names("runs") == []

        drive(script, workspace, station="launch")

    def test_an_empty_workspace_names_what_is_missing(self, tmp_path: Path, started: list[tuple[str, bool]]) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await sees(pilot, "▲ there is none yet; add some")
            await pilot.press("w")
            await sees(pilot, "data: there is none yet")
            assert started == []

        drive(script, init(tmp_path / "empty"), station="launch")

    def test_a_read_only_workspace_says_so(
        self, workspace: Workspace, started: list[tuple[str, bool]], frozen: Callable[[Workspace], Workspace]
    ) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await ready(app, pilot)
            await pilot.press("w")
            await sees(pilot, "is read-only: it is a copy")
            assert started == []

        drive(script, frozen(workspace), station="launch")


@pytest.fixture
def frozen() -> Callable[[Workspace], Workspace]:
    from dataclasses import replace

    return lambda workspace: replace(workspace, read_only_reason="it is a copy")
