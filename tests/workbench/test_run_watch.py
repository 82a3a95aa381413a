"""A frame says where a run is; a sparkline has the shape of its values."""

from __future__ import annotations

import json

import pytest

from engine.run.locks import hold
from tests.workbench.run_folders import make_run
from workbench.cli import main
from workbench.run_list import RunSummary, find_run
from workbench.run_watch import follow, frame, leaving_is_told, sparkline, wait_for_end
from workbench.workspace import Workspace


class TestSparkline:
    def test_low_to_high(self) -> None:
        assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], plain=False) == "▁▂▃▄▅▆▇█"

    def test_many_values_are_averaged_in_equal_stretches(self) -> None:
        assert sparkline([0, 0, 10, 10], width=2, plain=False) == "▁█"

    def test_a_flat_line_and_nothing(self) -> None:
        assert sparkline([3.0, 3.0], plain=False) == "▄▄"
        assert sparkline([float("nan")]) == ""

    def test_a_terminal_without_such_characters(self) -> None:
        assert sparkline([0, 7], plain=True) == "_@"


class TestFrame:
    def test_it_holds_step_metrics_kl_and_checkpoints(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-a-k3f", checkpoints=(2, 4), best=2)
        text = "\n".join(frame(find_run(workspace, "-")))
        assert "sft · done · step 4 of 8 (50 %)" in text
        assert "loss" in text
        assert "█" in text
        assert "sampled KL  0.400 nats a sequence ± 0.050, step 4" in text
        assert "checkpoints at step 2, 4" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_a_run_that_has_only_begun(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-reward-a-k3f", step=0, phase="preparing")
        assert "no metrics yet" in frame(find_run(workspace, "-"))

    def test_once_as_json(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(workspace, "1124-dpo-a-k3f")
        assert main(["--workspace", str(workspace.root), "runs", "watch", "-", "--once", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["metrics"]["loss"] == {"step": 4, "value": 0.25}


@pytest.mark.parametrize(("phase", "code"), [("done", 0), ("stopped", 3), ("failed", 1), ("running", 1)])
def test_waiting_ends_with_the_runs_exit_code(workspace: Workspace, phase: str, code: int) -> None:
    make_run(workspace, "1124-sft-a-k3f", phase=phase)
    heard: list[str] = []
    assert wait_for_end(find_run(workspace, "-"), lambda summary: heard.append(summary.state)) == code
    assert len(heard) == 1


@pytest.mark.parametrize("alive", [True, False])
def test_who_stops_waiting_hears_whether_the_run_goes_on(workspace: Workspace, alive: bool) -> None:
    folder = make_run(workspace, "1124-sft-a-k3f", phase="running")
    told: list[str] = []
    lock = hold(folder.lock_path) if alive else None
    with pytest.raises(KeyboardInterrupt), leaving_is_told(find_run(workspace, "-"), told.append):
        raise KeyboardInterrupt
    if lock is not None:
        lock.release()
    words = "run 1124-sft-a-k3f goes on. Stop it with: workbench runs stop 1124-sft-a-k3f"
    assert told == ([words] if alive else [])


@pytest.mark.parametrize(
    ("run_id", "words"), [("1124-sft-a-k3f", "--model run:1124"), ("1124-reward-a-k3f", "--reward-model run:1124")]
)
def test_what_comes_next_is_what_the_model_is_for(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], run_id: str, words: str
) -> None:
    make_run(workspace, run_id, checkpoints=(4,))
    assert main(["--workspace", str(workspace.root), "runs", "show", "-"]) == 0
    assert f"next {words}" in " ".join(capsys.readouterr().out.split())


def summary(state: str, step: int, total: int = 5, **last: float) -> RunSummary:
    return RunSummary("1124-sft-a-k3f", "sft", "a", "", state, "", step, total, None, None, "cpu", last, None)


class TestFollowing:
    def lines(self, *summaries: RunSummary) -> list[str]:
        told: list[str] = []
        hear = follow(told.append)
        for one in summaries:
            hear(one)
        return [line.removeprefix("1124-sft-a-k3f  ") for line in told]

    def test_a_metric_stands_once_and_a_line_says_something(self) -> None:
        assert self.lines(summary("running", 0, eval_loss=2.0)) == ["step 0/5  eval_loss 2.0000"]
        assert self.lines(summary("running", 0, 0)) == []

    def test_the_metrics_of_an_earlier_attempt_are_not_told(self) -> None:
        resumed = self.lines(
            summary("preparing", 4, loss=9.0), summary("running", 2, loss=9.0), summary("running", 3, loss=1.0)
        )
        assert resumed == ["preparing  step 4/5", "step 2/5", "step 3/5  loss 1.0000"]

    def test_stopping_is_told_only_before_the_end(self) -> None:
        assert self.lines(summary("stopping", 5), summary("done", 5)) == ["done  step 5/5"]
        assert self.lines(summary("stopping", 3)) == ["stopping  step 3/5"]
