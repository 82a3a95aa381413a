"""A reward model at chance, or past its best, is told of with its figures before a run begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.run.metrics_log import MetricsWriter
from tests.workbench.run_folders import make_run
from workbench.model_names import ResolvedModel
from workbench.reward_model_state import reward_model_warnings
from workbench.workspace import Workspace

ID = "1124-reward-a-k3f"


def warnings(
    workspace: Workspace, step: int, evaluations: dict[int, dict[str, float]], best: int | None
) -> tuple[str, ...]:
    """Of the checkpoint of `step`, after these held-out figures; `best` is the step of the best checkpoint."""
    folder = make_run(workspace, ID, step=0, checkpoints=(10, 20, 30))
    if best is not None:
        folder.write_best({"step": best, "metric": "eval_loss", "value": evaluations[best]["eval_loss"]})
    writer = MetricsWriter(folder.metrics_path, 1)
    for at, metrics in evaluations.items():
        writer.write(at, metrics)
    writer.close()
    return reward_model_warnings(workspace, ResolvedModel(f"run:{ID}@{step}", Path("base"), Path("adapter")))


def evaluated(accuracy: float, error: float, loss: float) -> dict[str, float]:
    return {"eval_accuracy": accuracy, "eval_accuracy_standard_error": error, "eval_loss": loss}


GOOD = {10: evaluated(0.6, 0.03, 0.6), 20: evaluated(0.8, 0.03, 0.4), 30: evaluated(0.79, 0.03, 0.5)}


def test_a_good_model_at_its_best_is_passed_over(workspace: Workspace) -> None:
    assert warnings(workspace, 20, GOOD, best=20) == ()


def test_one_before_its_best_is_not_past_it(workspace: Workspace) -> None:
    assert warnings(workspace, 10, GOOD, best=20) == ()


def test_one_past_its_best_names_both_steps(workspace: Workspace) -> None:
    assert warnings(workspace, 30, GOOD, best=20) == (
        f"the reward model run:{ID}@30 is past its best: eval_loss 0.5 at step 30, 0.4 at step 20. Take --reward-model "
        f"run:{ID}@best",
    )


@pytest.mark.parametrize(
    ("accuracy", "error", "words"),
    [
        (0.56, 0.05, "may be at chance: held-out accuracy 0.560 at step 20 (95 % interval 0.462 to 0.658; "),
        (0.3, 0.05, "is below chance: held-out accuracy 0.300 at step 20 "),
        (0.9, float("nan"), "may be at chance: held-out accuracy 0.900 at step 20 (no interval; "),
    ],
)
def test_one_at_chance_names_its_interval(workspace: Workspace, accuracy: float, error: float, words: str) -> None:
    (said,) = warnings(workspace, 20, {10: GOOD[10], 20: evaluated(accuracy, error, 0.4)}, best=20)
    assert words in said
    assert "A policy that follows it follows noise" in said


def test_the_figures_are_those_of_the_checkpoint_and_not_of_a_later_one(workspace: Workspace) -> None:
    (said,) = warnings(workspace, 10, {10: evaluated(0.5, 0.1, 0.7), 20: GOOD[20]}, best=20)
    assert "at step 10 (95 % interval 0.304 to 0.696" in said


def test_without_held_out_pairs_nobody_knows(workspace: Workspace) -> None:
    (said,) = warnings(workspace, 20, {}, best=None)
    assert "was not measured on held-out pairs" in said


def test_of_a_model_from_elsewhere_nothing_is_said(workspace: Workspace) -> None:
    assert reward_model_warnings(workspace, None) == ()
    assert reward_model_warnings(workspace, ResolvedModel("./folder", Path("base"))) == ()
    assert reward_model_warnings(workspace, ResolvedModel("run:1124-reward-gone-k3f@10", Path("base"))) == ()
