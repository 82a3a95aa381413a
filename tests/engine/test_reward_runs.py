"""Runs whose completions are judged by Python functions: what they write, that they resume, and how they fail."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import train
from engine.model.heads import load_reward_head
from engine.rewards.approvals import approve
from engine.rewards.frozen import freeze_functions
from engine.rewards.function_files import FunctionFile
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from engine.run.samples_log import read_samples
from engine.run.status import new_status, read_status, write_status
from tests.engine.conftest import write_tiny_model
from tests.engine.run_maker import make_run
from tests.engine.test_training_runs import run, weights

SOURCE = """
import os

def length(prompts, completions, **row):
    return [len(c) / 10 for c in completions]

def lettered(prompts, completions, id, tags=None):
    assert all(p[-1]["role"] == "user" for p in prompts)
    return [sum(c.count(x) for x in "aeiou") + len(i) for c, i in zip(completions, id)]

def huge(prompts, completions):
    return [1e6 + len(c) for c in completions]

def failing(prompts, completions):
    if os.path.exists("FLAG"):
        return [0.5, float("nan")] * (len(completions) // 2)
    return [len(c) / 10 for c in completions]
"""
Make = Callable[..., RunFolder]
QUICK: dict[str, Any] = {
    "train_rows": 6, "eval_rows": 2, "train__steps": 3, "train__batch_size": 2, "evaluation__every": 3,
    "checkpoint__every": 2, "probe__prompts": 0,
}  # fmt: skip


@pytest.fixture
def make(tiny_model_folder: Path, tmp_path: Path) -> Make:
    """A run judged by functions of a file that is approved."""

    def build(
        name: str, method: str, *functions: str, weights: Any = (), source: str = SOURCE, **more: Any
    ) -> RunFolder:
        file, content = tmp_path / "judge.py", source.replace("FLAG", str(tmp_path / "flag")).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        many = len(functions)
        settings = {
            **QUICK,
            "rewards__functions": [f"judge.py:{one}" for one in functions],
            "rewards__function_weights": list(weights) or [1.0] * many,
            "rewards__function_files": [str(file)] * many,
            "rewards__function_sha256": [sha256] * many,
            **more,
        }
        folder = make_run(tmp_path / name, method, tiny_model_folder, **settings)
        freeze_functions([FunctionFile(one, one, file, content) for one in functions], folder.rewards)
        approve(file, content, sha256)
        return folder

    return build


def failure(folder: RunFolder) -> str:
    """Train to a failure; its reason."""
    before = new_status(folder, read_status(folder), phase="preparing")
    write_status(folder, replace(before, attempt=before.attempt + 1))
    assert train.main([str(folder.path)]) == 1
    status = read_status(folder)
    assert status is not None
    assert status.error is not None
    return str(status.error["what"])


@pytest.mark.parametrize("method", ["grpo", pytest.param("rloo", marks=pytest.mark.slow)])
def test_functions_judge_and_each_has_its_figures(make: Make, method: str) -> None:
    folder = make("run", method, "length", "lettered", "huge", weights=(2.0, -0.5, 0.0), eval_rows=8)
    steps = run(folder)
    for step in range(1, 4):
        line = steps[step]
        cut_off = line["completions/clipped_ratio"]
        parts = 2.0 * line["rewards/length/mean"] - 0.5 * line["rewards/lettered/mean"]
        assert line["reward"] == pytest.approx(parts - cut_off, rel=1e-5)
        assert line["rewards/length/std"] > 0
        # The weight 0 watches.
        assert line["rewards/huge/mean"] > 1e6
        assert line["val/first_ratio_deviation"] == 0.0
    assert steps[3]["eval_rewards/length/mean"] > 0
    assert steps[3]["eval_rewards/length/mean_standard_error"] > 0
    for row in read_samples(folder, "rollout"):
        assert row["scores"]["length"] == pytest.approx(len(row["completion"]) / 10)
        parts = 2.0 * row["scores"]["length"] - 0.5 * row["scores"]["lettered"]
        assert row["reward"] == pytest.approx(parts - (not row["stopped"]), abs=1e-5)
    (event,) = [e for e in read_events(folder) if e["kind"] == "reward_functions"]
    assert [one["function"] for one in event["functions"]] == ["length", "lettered", "huge"]


def test_a_full_policy_is_judged_by_functions(make: Make) -> None:
    steps = run(make("full", "grpo", "length", adapter__kind="full", optim__lr=1e-3))
    assert all(math.isfinite(steps[s]["loss"]) for s in range(1, 4))
    assert steps[1]["objective/kl"] == 0.0
    assert steps[3]["objective/kl"] != 0.0


class TestPpo:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            pytest.param({"ppo__value_model": "head"}, marks=pytest.mark.slow),
            {"ppo__value_model": "head", "adapter__kind": "full", "optim__lr": 1e-3},
        ],
        ids=["adapter", "head", "full"],
    )
    def test_the_value_begins_at_0_and_moves(self, make: Make, settings: dict[str, Any]) -> None:
        folder = make("run", "ppo", "length", ppo__value_warmup=1, **settings)
        steps = run(folder)
        first = steps[1]
        assert first["val/explained_variance"] == pytest.approx(0.0, abs=1e-5)
        assert first["objective/raw_scores"] == pytest.approx(first["rewards/length/mean"])
        assert first["objective/kl"] == 0.0
        # With all weights training the head's products are added up in another order where a gradient is wanted.
        assert steps[2]["val/first_ratio_deviation"] <= (1e-5 if "adapter__kind" in settings else 0.0)
        assert abs(steps[2]["val/explained_variance"]) > 1e-3
        assert steps[3]["objective/kl"] != 0.0

    @pytest.mark.slow
    def test_it_resumes_bit_equal_after_a_failure(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = make("whole", "ppo", "failing", ppo__value_warmup=1)
        expected = run(whole)
        folder = make("halved", "ppo", "failing", ppo__value_warmup=1)
        fail_after_step(monkeypatch, folder, 2, tmp_path / "flag")
        assert "returned nan" in failure(folder)
        (tmp_path / "flag").unlink()
        assert run(folder) == expected
        assert weights(folder, 3) == weights(whole, 3)

    def test_an_adapter_over_no_adapters_is_refused(self) -> None:
        from engine.errors import ConfigError
        from engine.run.config_layers import resolve

        with pytest.raises(ConfigError, match=r"value_model = \"adapter\": is an adapter, but adapter.kind is full"):
            resolve("ppo", [("test", {"adapter": {"kind": "full"}})])


@pytest.fixture(scope="module")
def judges(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Base and checkpoint of reward runs: two over the base, one over another vocabulary."""
    place = tmp_path_factory.mktemp("judges")
    far = write_tiny_model(place / "far-base", seed=5, vocab_size=290)
    found = {}
    for name, base, seed in (("near", tiny_model_folder, 1), ("second", tiny_model_folder, 2), ("far", far, 3)):
        folder = make_run(
            place / name, "reward", base, train__steps=1, train__seed=seed, evaluation__every=1, eval_rows=4
        )
        run(folder)
        found[name] = (base, folder.checkpoint_path(1))
    return found


class TestRewardModels:
    """Reward models beside each other and a function: over the base, with a vocabulary of their own, or whole."""

    def settings(self, judges: dict[str, tuple[Path, Path]], first: str, *more: str) -> dict[str, Any]:
        return {
            "model__reward_source": f"run:{first}@1",
            "model__reward_path": str(judges[first][0]),
            "model__reward_adapter": str(judges[first][1]),
            "rewards__more_models": [f"run:{one}@1" for one in more],
            "rewards__more_paths": [str(judges[one][0]) for one in more],
            "rewards__more_adapters": [str(judges[one][1]) for one in more],
            "rewards__more_weights": [0.5] * len(more),
        }

    def test_several_over_the_base_one_apart_and_a_function_are_added_up(
        self, make: Make, judges: dict[str, tuple[Path, Path]]
    ) -> None:
        folder = make("run", "grpo", "length", **self.settings(judges, "near", "second", "far"))
        steps = run(folder)
        scales = {name: load_reward_head(checkpoint)[1] for name, (_, checkpoint) in judges.items()}
        weight = {"near": 1.0, "second": 0.5, "far": 0.5}
        for step in range(1, 4):
            line = steps[step]
            parts = [
                weight[name] * (line[f"rewards/{name}/mean"] - scale.mean) / scale.std for name, scale in scales.items()
            ]
            total = sum(parts) + line["rewards/length/mean"] - line["completions/clipped_ratio"]
            assert line["reward"] == pytest.approx(total, rel=1e-3, abs=1e-4)
        (event,) = [e for e in read_events(folder) if e["kind"] == "reward_model_apart"]
        assert (event["label"], event["same_tokens"]) == ("far", False)

    @pytest.mark.slow
    def test_a_full_policy_is_judged_by_a_model_that_is_kept_as_it_was(
        self, make: Make, judges: dict[str, tuple[Path, Path]]
    ) -> None:
        """The same reward model as a role and apart gives the same first scores."""
        apart = run(make("full", "grpo", adapter__kind="full", optim__lr=1e-3, **self.settings(judges, "near")))
        role = run(make("lora", "grpo", **self.settings(judges, "near")))
        assert apart[0]["eval_reward"] == pytest.approx(role[0]["eval_reward"], abs=1e-3)
        assert "rewards/near/mean" in apart[1]

    def test_lists_that_do_not_fit_together_are_refused(self, make: Make, judges: dict[str, tuple[Path, Path]]) -> None:
        settings = self.settings(judges, "near", "far") | {"rewards__more_weights": []}
        assert "have 1, 1, 1, 0 entries, expected as many of each" in failure(make("run", "grpo", **settings))


def test_a_run_whose_function_fails_keeps_what_it_learnt_and_resumes_bit_equal(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("whole", "grpo", "failing", grpo__score_scale="running")
    expected = run(whole)
    folder = make("halved", "grpo", "failing", grpo__score_scale="running")
    fail_after_step(monkeypatch, folder, 1, tmp_path / "flag")
    what = failure(folder)
    assert "reward failing (" in what
    assert "returned nan, expected a finite number; for row p" in what
    assert folder.checkpoint_steps() == [1]
    (tmp_path / "flag").unlink()
    assert run(folder) == expected
    assert weights(folder, 3) == weights(whole, 3)


def fail_after_step(monkeypatch: pytest.MonkeyPatch, folder: RunFolder, step: int, flag: Path) -> None:
    """Make the function `failing` fail in the first attempt, once the line of `step` is written."""
    from engine.reporting import Reporter

    write = Reporter.metrics

    def write_and_flag(self: Reporter, at: int, metrics: Any) -> None:
        write(self, at, metrics)
        if at == step and self._folder.path == folder.path and self._status.attempt == 1:
            flag.touch()

    monkeypatch.setattr(Reporter, "metrics", write_and_flag)


class TestApproval:
    def test_a_file_that_was_not_approved_here_is_not_run(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make("run", "grpo", "length", source=SOURCE + "\nopen('FLAG', 'w').close()\n")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
        what = failure(folder)
        assert "not approved on this machine" in what
        assert f"workbench rewards approve {folder.rewards}" in what
        assert not (tmp_path / "flag").exists()

    def test_another_copy_in_the_runs_folder_is_refused_at_a_resume(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make("run", "grpo", "failing")
        fail_after_step(monkeypatch, folder, 0, tmp_path / "flag")
        failure(folder)
        (copy,) = folder.rewards.iterdir()
        copy.write_bytes(copy.read_bytes() + b"\n# more\n")
        assert "not the file that the run was launched with" in failure(folder)


def test_what_a_function_needs_and_the_rows_lack_is_told_before_the_first_step(make: Make) -> None:
    source = "def exact(prompts, completions, reference, difficulty):\n    return [0.0 for _ in completions]\n"
    what = failure(make("run", "grpo", "exact", source=source))
    assert "reward exact" in what
    assert "needs difficulty, reference, which the rows of the prompts do not have; they have: id, stopped" in what


def test_nothing_that_judges_is_refused(make: Make) -> None:
    assert "nothing judges the completions: grpo needs a reward model" in failure(make("run", "grpo"))


@pytest.mark.slow
def test_the_child_ends_with_the_worker(make: Make) -> None:
    """A run leaves no process behind, and no print of a function is lost."""
    source = (
        "import os\n\ndef told(prompts, completions):\n    print('pid', os.getpid())\n    return [1.0] * len(prompts)\n"
    )
    folder = make("run", "grpo", "told", source=source, train__steps=1)
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "engine.train", str(folder.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pids = {int(line.split()[-1]) for line in done.stderr.splitlines() if line.startswith("reward function: pid ")}
    assert len(pids) == 1
    from tests.engine.rewards.test_process import alive

    assert not alive(pids.pop())
    lines = [line.metrics for line in read_metrics(folder.metrics_path)]
    assert lines[-1]["frac_reward_zero_std"] == 1.0
    assert json.loads((folder.samples_path).read_text().splitlines()[-1])
