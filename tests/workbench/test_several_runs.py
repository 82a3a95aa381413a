"""Several runs at once: which are found, which are a group, what is drawn of them and what stands in the table."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from engine.run.metrics_log import MetricsWriter
from engine.run.status import Status, write_status
from tests.workbench.run_folders import make_run
from workbench.errors import NotFound, UsageError
from workbench.overlay_view import STYLES, OverlayView
from workbench.plot_canvas import RUNS
from workbench.several_runs import LETTERS, MOST_RUNS, SeveralRuns, letter_of, table_lines, what_differs
from workbench.workspace import Workspace

ONE, TWO, OTHER = "1124-dpo-one-aaa", "1124-dpo-two-bbb", "1124-dpo-other-ccc"


def write_run(
    workspace: Workspace, name: str, *, seed: int = 1, lr: float = 1e-5, eval_sha: str = "e" * 64
) -> RunFolder:
    layer = {
        "run": {"id": name, "created": f"2026-11-24T10:00:0{seed}+00:00"}, "model": {"source": "sample"},
        "train": {"seed": seed}, "optim": {"lr": lr}, "data": {"eval_sha256": eval_sha, "eval_rows": 8},
    }  # fmt: skip
    folder = RunFolder.create(workspace.runs / name, to_toml(resolve("dpo", [("test", layer)]).config))
    write_status(folder, Status(run=name, phase="done", step=100, total_steps=100, attempt=1, device="cpu"))
    writer = MetricsWriter(folder.metrics_path, 1)
    for step in range(101):
        margin = lr * 1e5 * (1 - math.exp(-step / 40)) + 0.05 * math.sin(step * (1 + seed))
        found = {"loss": math.log(1 + math.exp(-margin)), "rewards/margins": margin, "num_tokens": 100.0 * step}
        if step % 20 == 0:
            found |= {
                "eval_loss": found["loss"] + 0.02 * seed,
                "kl/policy_reference_nats_per_sequence": lr * 1e3 * step,
            }
        writer.write(step, found, time=1.8e9 + 2 * step)
    writer.close()
    return folder


@pytest.fixture
def three(workspace: Workspace) -> Workspace:
    write_run(workspace, ONE, seed=1)
    write_run(workspace, TWO, seed=2)
    write_run(workspace, OTHER, seed=1, lr=3e-5, eval_sha="f" * 64)
    return workspace


class TestChoice:
    def test_ids_first_then_what_a_pattern_finds_in_ids_names_and_settings(self, three: Workspace) -> None:
        def ids(choice: str) -> list[str]:
            return [run.run.id for run in SeveralRuns(three, choice).look().runs]

        assert ids(f"{OTHER},{ONE}") == [OTHER, ONE]
        assert ids(f"{TWO}/optim.lr=3e-05") == [TWO, OTHER]
        assert ids("/dpo-(one|two)") == [ONE, TWO]
        assert len(ids("/")) == 3
        assert ids("/nothing-like-it") == []

    def test_what_is_none_is_said(self, three: Workspace) -> None:
        with pytest.raises(NotFound, match="no run 'gone'"):
            SeveralRuns(three, "gone")
        with pytest.raises(UsageError, match="no regular expression"):
            SeveralRuns(three, "/(")

    def test_the_baseline_goes_round_and_letters_stay(self, three: Workspace) -> None:
        runs = SeveralRuns(three, "/")
        before = runs.look()
        letters = {run.run.id: mark for run, mark in zip(before.runs, before.marks, strict=True)}
        assert before.comparison is not None
        runs.next_baseline(before)
        after = runs.look()
        assert after.runs[0] is not before.runs[0]
        assert {run.run.id: mark for run, mark in zip(after.runs, after.marks, strict=True)} == letters
        for _ in range(2):
            runs.next_baseline(runs.look())
        assert [run.run.id for run in runs.look().runs] == [run.run.id for run in before.runs]

    def test_new_runs_come_and_a_damaged_one_takes_nothing_from_the_others(self, three: Workspace) -> None:
        runs = SeveralRuns(three, "/dpo")
        before = runs.look()
        assert runs.look() == before
        make_run(three, "1124-dpo-late-zzz").config_path.write_text("[torn")
        after = runs.look()
        assert after != before
        assert len(after.runs) == 4
        assert "1124-dpo-late-zzz" in str(after.comparison and after.comparison.warnings)

    def test_of_too_many_the_newest(self, workspace: Workspace) -> None:
        for place in range(MOST_RUNS + 3):
            make_run(workspace, f"1124-sft-r{place:02}-aaa", created=f"2026-11-24T10:{place:02}:00+00:00", step=1)
        seen = SeveralRuns(workspace, "1124-sft-r00-aaa/").look()
        assert (len(seen.runs), seen.left_out) == (MOST_RUNS, 3)
        assert seen.runs[0].run.id == "1124-sft-r00-aaa"
        assert seen.runs[-1].run.id == f"1124-sft-r{MOST_RUNS + 2}-aaa"


class TestOverlay:
    def test_seeds_are_one_curve_with_an_error_and_g_takes_them_apart(self, three: Workspace) -> None:
        view = OverlayView()
        view.take(SeveralRuns(three, f"{ONE},{TWO},{OTHER}").look())
        scenes, curves = view.drawn()
        loss = next(scene.panel for scene in scenes if scene.panel.title == "loss")
        assert [(trace.letter, bool(trace.error)) for trace in loss.traces] == [("a", True), ("c", False)]
        mean, one, two = (curves[loss.traces[0].metric], *(run.log.metrics["loss"] for run in view._seen.runs[:2]))  # type: ignore[union-attr]
        assert mean.values[50] == pytest.approx((one.values[50] + two.values[50]) / 2)
        assert curves[loss.traces[0].error].values[50] == pytest.approx(abs(one.values[50] - two.values[50]) / 2)
        view.grouped = False
        scenes, _ = view.drawn()
        loss = next(scene.panel for scene in scenes if scene.panel.title == "loss")
        assert [trace.letter for trace in loss.traces] == ["a", "b", "c"]
        assert len({(trace.kind, trace.ink) for trace in loss.traces}) == 3

    def test_what_cannot_be_held_against_the_baseline_is_marked(self, three: Workspace) -> None:
        view = OverlayView()
        view.take(SeveralRuns(three, f"{ONE},{OTHER}").look())
        by_title = {scene.panel.title: scene.panel for scene in view.drawn()[0]}
        assert [trace.label for trace in by_title["eval_loss"].traces] == ["", "≠"]
        assert [trace.label for trace in by_title["loss"].traces] == ["", ""]

    def test_held_out_panels_come_first_and_every_metric_has_one(self, three: Workspace) -> None:
        view = OverlayView()
        view.take(SeveralRuns(three, "/").look())
        titles = [scene.panel.title for scene in view.drawn()[0]]
        assert titles[:2] == ["eval_loss", "loss"]
        assert "num_tokens" in titles

    def test_over_tokens_with_window_and_crosshair(self, three: Workspace) -> None:
        view = OverlayView()
        view.take(SeveralRuns(three, "/").look())
        assert view.next_axis() == "tokens"
        assert (view.shown.first, view.shown.last) == (0, 10_000)
        view.zoom(True)
        view.move_cross(-1)
        scenes, curves = view.drawn()
        assert (scenes[0].first_step, scenes[0].last_step, scenes[0].cross) == (5_000, 10_000, 10_000)
        assert view.cross_words() == "tokens 10.0k"
        loss = next(scene.panel for scene in scenes if scene.panel.title == "loss")
        assert list(curves[loss.traces[0].metric].steps)[:3] == [0, 100, 200], "a mean, too, lies over tokens"
        view.pan(-1)
        assert view.shown.first == 3_750
        view.whole()
        assert view.next_axis() == "time"

    def test_colour_and_line_tell_twenty_eight_runs_apart_and_letters_all(self) -> None:
        looks = {(STYLES[mark % len(STYLES)], mark % len(RUNS)) for mark in range(28)}
        assert len(looks) == 28
        assert len({letter_of(mark) for mark in range(MOST_RUNS)}) == MOST_RUNS == len(set(LETTERS[:MOST_RUNS]))

    def test_no_run_draws_nothing(self, workspace: Workspace) -> None:
        view = OverlayView()
        assert view.drawn() == ([], {})
        view.take(SeveralRuns(workspace, "/").look())
        assert view.drawn() == ([], {})


class TestTable:
    def test_differences_and_values_with_their_marks(self, three: Workspace) -> None:
        comparison = SeveralRuns(three, f"{ONE},{TWO},{OTHER}").look().comparison
        assert comparison is not None
        lines = [line for line, _ in table_lines(comparison, "abc", (0, 1, 2), 100)]
        assert all(len(line) <= 100 for line in lines)
        text = {line.split()[0]: line for line in lines if line.split()}
        assert text["optim.lr"].split()[1:] == ["1e-05", "1e-05", "3e-05"]
        assert text["eval_loss,"].count("*") == 1
        assert text["eval_loss,"].count("≠") == 1
        assert "≠" not in text["loss,"]
        assert what_differs(comparison, (2,), most=2).startswith("lr=3e-05 seed=1 +")
        assert what_differs(comparison, (2,), most=1).endswith(f" +{len(comparison.settings) - 1}")
        assert what_differs(comparison, (0, 1), most=9).startswith("lr=1e-05 eval_sha256="), "not a seed"

    def test_equal_settings_are_said_to_be_equal(self, workspace: Workspace, tmp_path: Path) -> None:
        write_run(workspace, ONE)
        comparison = SeveralRuns(workspace, "/").look().comparison
        assert comparison is not None
        assert ("none", "faint") in table_lines(comparison, "a", (0,), 60)
