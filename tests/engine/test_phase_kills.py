"""kill -9 in the rollout, in the scoring and in the update of PPO, GRPO and RLOO, by one process and by two.

Where a process dies is no matter of luck: it kills itself between two tokens, two measured micro-batches or two updates
of a step that no checkpoint holds. The run then goes on and ends with the bits of one that was left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from engine.run.samples_log import read_samples
from tests.engine.rank_processes import PHASES, Kill, train_together
from tests.engine.run_maker import make_run
from tests.engine.test_training_runs import curve, run, weights

pytestmark = pytest.mark.slow
STEPS, KILLED_STEP, CHECKPOINT = 5, 3, 2
METHODS = ("ppo", "grpo", "rloo")
SETTINGS: dict[str, Any] = {
    "train__steps": STEPS, "checkpoint__every": CHECKPOINT, "evaluation__every": STEPS, "probe__prompts": 0,
    # So small that every process has several micro-batches to measure.
    "train__tokens_per_micro_batch": 30, "train__batch_size": 6,
    # All that is learned beside weights: moments of the scores, and the weight of the KL.
    "ppo__score_scale": "running", "ppo__kl_control": "adaptive", "ppo__kl_target": 0.01, "ppo__kl_horizon": 40.0,
    "ppo__value_warmup": 1, "grpo__score_scale": "running", "grpo__generations": 3, "rloo__score_scale": "running",
}  # fmt: skip


@pytest.fixture(scope="module")
def reward_model(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a short reward run."""
    folder = make_run(tmp_path_factory.mktemp("reward") / "reward", "reward", tiny_model_folder)
    run(folder)
    return folder.checkpoint_path(6)


def said(folder: RunFolder) -> list[dict[str, Any]]:
    """The samples that count, without what may differ."""
    return [{k: v for k, v in row.items() if k not in ("time", "attempt")} for row in read_samples(folder)]


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_any_phase_a_run_ends_with_the_bits_of_one_left_alone(
    tiny_model_folder: Path, reward_model: Path, tmp_path: Path, processes: int
) -> None:
    def make(name: str, method: str) -> RunFolder:
        own = {key: value for key, value in SETTINGS.items() if key.partition("__")[0] not in METHODS}
        own |= {key: value for key, value in SETTINGS.items() if key.partition("__")[0] == method}
        return make_run(
            tmp_path / name, method, tiny_model_folder, model__reward_path=str(tiny_model_folder),
            model__reward_adapter=str(reward_model), train__processes=processes, **own,
        )  # fmt: skip

    # RLOO is shared out by GRPO's code.
    methods = METHODS if processes == 1 else METHODS[:2]
    whole = {method: make(f"{method}-whole", method) for method in methods}
    harmed = {f"{method}-{phase}": make(f"{method}-{phase}", method) for method in methods for phase in PHASES}
    # With two processes now the one that leads is killed, now the other.
    ranks = dict(zip(PHASES, (processes - 1, 0, processes - 1), strict=True))
    kills = {name: Kill(phase := name.partition("-")[2], KILLED_STEP, ranks[phase]) for name in harmed}
    codes = train_together([*whole.values(), *harmed.values()], processes, kills)
    for folder in whole.values():
        assert codes[folder.id] == [0] * processes, folder.log_path
    for name, folder in harmed.items():
        assert codes[name][kills[name].rank] == -9, name
        # The other one notices that it is alone.
        assert [code for rank, code in enumerate(codes[name]) if rank != kills[name].rank] == [4] * (processes - 1)
        assert [line.step for line in read_metrics(folder.metrics_path)] == list(range(KILLED_STEP + 1))
        assert sorted(path.name for path in folder.checkpoints.glob("step-*"))[-1] == f"step-{CHECKPOINT:06d}"
    codes = train_together(list(harmed.values()), processes)
    for name, folder in harmed.items():
        assert codes[name] == [0] * processes, name
        alone = whole[name.partition("-")[0]]
        assert curve(folder) == curve(alone), name
        assert weights(folder, STEPS) == weights(alone, STEPS), name
        assert said(folder) == said(alone), name
