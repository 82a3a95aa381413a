"""PPO, GRPO and RLOO by two ranks, step for step what one does alone: rollouts, scores, updates, and who decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.methods import grouped
from engine.methods.grouped import GroupedPolicyOptimisation, GroupPlan
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.rollout import MeasuredBatch
from engine.methods.shared_rollouts import micro_batches_with_owner, sampled_together, tell_measurements
from engine.model.sampler import Completion
from engine.optimizer import Optimizer
from engine.reporting import QuietReporter
from engine.run.config_grouped import GrpoConfig, RlooConfig
from engine.run.config_layers import resolve
from engine.run.config_ppo import PpoConfig
from engine.run.folder import RunFolder
from engine.training_loop import Progress, TrainingLoop
from tests.engine.methods.ppo_world import make_grouped, make_ppo
from tests.engine.rank_threads import RankThreads

STEPS = 2
PPO = PpoConfig(
    max_new_tokens=6, minibatches=2, epochs=2, value_warmup=0, score_scale="running", kl_control="adaptive",
    kl_target=0.01, kl_horizon=40.0,
)  # fmt: skip
GRPO = GrpoConfig(max_new_tokens=6, generations=3, minibatches=2, score_scale="running", scale_rewards="batch")
SETTINGS: dict[str, PpoConfig | GrpoConfig | RlooConfig] = {
    "ppo": PPO,
    "ppo, a head alone": dataclasses.replace(PPO, value_model="head", score_at="post_eos"),
    "ppo, ended early": dataclasses.replace(PPO, target_kl=1e-5),
    "grpo": GRPO,
    # One group a mini-batch: it is divided, or a rank would have nothing to do.
    "grpo, few groups": dataclasses.replace(GRPO, minibatches=4),
    "rloo": RlooConfig(max_new_tokens=6, generations=2),
    "reinforce++": RlooConfig(max_new_tokens=6, generations=2, baseline="batch", flat_groups="skip"),
}
FAST = ("ppo", "grpo, few groups", "reinforce++")
Method = ProximalPolicyOptimisation | GroupedPolicyOptimisation


@dataclasses.dataclass
class Trained:
    """What one rank holds after some steps."""

    metrics: list[dict[str, float]]
    weights: dict[str, torch.Tensor]
    learned: dict[str, torch.Tensor]
    """What the method has learned beside weights."""
    rows: list[tuple[int, list[dict[str, Any]]]]
    """What would stand in samples.jsonl."""
    optimizer_steps: int


@pytest.fixture
def build(tiny_model_folder: Path, tmp_path: Path) -> Callable[[str], tuple[Method, list[Any]]]:
    """A method over a policy that has left its reference, and the list that its samples go into."""

    def make(name: str) -> tuple[Method, list[Any]]:
        settings, rows = SETTINGS[name], []
        if isinstance(settings, PpoConfig):
            method: Method = make_ppo(tiny_model_folder, tmp_path, settings)
        else:
            plan = GroupPlan.of_grpo(settings) if isinstance(settings, GrpoConfig) else GroupPlan.of_rloo(settings)
            method = make_grouped(tiny_model_folder, tmp_path, settings, plan)
        method._on_samples = lambda step, shown: rows.append((step, shown))
        return method, rows

    return make


def train(method: Method, rows: list[Any]) -> Trained:
    """Steps by the loop itself."""
    parameters = dict(method._roles.trainable)
    for name, module in method.modules().items():
        parameters.update({f"{name}.{key}": value for key, value in module.named_parameters()})
    config = resolve("sft", [("test", {"optim": {"lr": 1e-3, "schedule": "constant", "warmup_share": 0.0}})]).config
    optimizer = Optimizer(parameters, config.optim, STEPS)
    nothing: Any = None
    folder = RunFolder(Path("a run that is not on the disk"))
    loop = TrainingLoop(
        config, folder, QuietReporter(folder, nothing, 0), method, optimizer, None, Progress(), lambda into: None,
        lambda: False,
    )  # fmt: skip
    metrics = [loop._train(step) for step in range(STEPS)]
    learned = {f"{n}.{key}": b for n, module in method.modules().items() for key, b in module.named_buffers()}
    state = optimizer.state_tensors()
    steps = max(int(tensor.max()) for name, tensor in state.items() if name.endswith("step"))
    return Trained(metrics, {n: p.detach().clone() for n, p in parameters.items()}, learned, rows, steps)


def said(trained: Trained) -> list[tuple[int, str, str, bool]]:
    """What was answered, in the order in which it is written down."""
    return [(step, row["prompt"], row["completion"], row["stopped"]) for step, rows in trained.rows for row in rows]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS if name not in FAST)]
)
def test_two_ranks_step_as_one_does(build: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = train(*build(name))
    built = [build(name) for _ in range(2)]
    both = RankThreads(monkeypatch, 2).run(lambda rank: train(*built[rank]))
    for mine in both:
        assert mine.optimizer_steps == alone.optimizer_steps
        for found, expected in zip(mine.metrics, alone.metrics, strict=True):
            # Where a group is divided its prompt goes through the model twice.
            told = {k: v for k, v in expected.items() if k != "num_tokens" or name != "grpo, few groups"}
            assert {k: found[k] for k in told} == pytest.approx(told, rel=1e-4, abs=2e-5)
            assert found.keys() == expected.keys()
            assert found["val/first_ratio_deviation"] == 0.0
        for kind in ("weights", "learned"):
            theirs, ours = getattr(alone, kind), getattr(mine, kind)
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}")
                # A rank that did otherwise than the other would part from it, step by step.
                assert torch.equal(ours[key], getattr(both[0], kind)[key]), key
        assert said(mine) == said(alone)
    if name == "ppo, ended early":
        assert alone.optimizer_steps < STEPS * PPO.epochs * PPO.minibatches
    moved = build(name)[0]._roles.trainable
    assert any((alone.weights[key] - value).abs().max() > 1e-4 for key, value in moved.items())


def test_each_rollout_is_sampled_and_measured_by_one_rank(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: dict[int, list[str]] = {0: [], 1: []}
    measured: dict[int, list[MeasuredBatch]] = {}
    threads = RankThreads(monkeypatch, 2)
    sample, measure = grouped.sample_policy, grouped.measure_groups
    from engine import ranks

    def sampling(roles: Any, prompts: Any, **options: Any) -> list[Completion]:
        sampled[ranks.rank()] += [prompt.id for prompt in prompts]
        return sample(roles, prompts, **options)

    def measuring(*arguments: Any, **options: Any) -> Any:
        return measured.setdefault(ranks.rank(), measure(*arguments, **options))

    monkeypatch.setattr(grouped, "sample_policy", sampling)
    monkeypatch.setattr(grouped, "measure_groups", measuring)
    built = [build("grpo")[0] for _ in range(2)]
    threads.run(lambda rank: [update.own() for update in built[rank].updates(0)])
    prompts = [built[0]._train[i].id for i in built[0]._order.indices(0)]
    # Whole groups, half of them each.
    assert sorted(sampled[0] + sampled[1]) == sorted(prompts * 3)
    assert len(sampled[0]) == len(sampled[1]) == 6
    assert set(sampled[0]) & set(sampled[1]) == set()
    own = [[i for b in measured[rank] if b.own for i in b.indices] for rank in (0, 1)]
    assert sorted(own[0] + own[1]) == list(range(12))
    assert min(map(len, own)) >= 3
    for mine, theirs in zip(measured[0], measured[1], strict=True):
        assert mine.own is not theirs.own
        assert mine.log_probs_N.abs().min() > 0
        for a, b in zip(mine.measurements(), theirs.measurements(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("shares", "updates"), [((0.1, 0.95), 1), ((0.1, 0.8), 4)])
def test_an_early_end_is_decided_on_the_kl_of_all(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, float], updates: int
) -> None:
    settings = dataclasses.replace(PPO, target_kl=0.02)
    built = [make_ppo(tiny_model_folder, tmp_path, settings) for _ in shares]

    def step(rank: int) -> int:
        made = 0
        for update in built[rank].updates(0):
            made += 1
            # What the policy's passes of this rank would have found: with that of the other it is above, or below.
            built[rank]._update_kl = torch.tensor(shares[rank] * settings.target_kl * update.counts["tokens"])
        return made

    assert RankThreads(monkeypatch, 2).run(step) == [updates, updates]


class TestTelling:
    def test_completions_come_back_in_order_and_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(place: int) -> Completion:
            return Completion([place] * (1 + place % 3), place % 2 == 0, [-0.1 * place] * (1 + place % 3))

        def sample(mine: list[int]) -> list[Completion]:
            return [answer(place) for place in mine]

        whole = [answer(place) for place in range(7)]
        assert sampled_together(7, sample, group=2) == whole
        threads = RankThreads(monkeypatch, 3)
        assert threads.run(lambda rank: sampled_together(7, sample, group=2)) == [whole] * 3
        assert threads.sums == 3
        # One prompt for three ranks: two of them sample nothing.
        assert threads.run(lambda rank: sampled_together(1, sample)) == [whole[:1]] * 3

    def test_measurements_are_told_in_one_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads = RankThreads(monkeypatch, 2)

        def tell(rank: int) -> list[list[float]]:
            tensors = [torch.full((2,), 3.5) * (rank == 0), torch.full((3, 1), -1.25) * (rank == 1)]
            tell_measurements(tensors)
            return [tensor.flatten().tolist() for tensor in tensors]

        assert threads.run(tell) == [[[3.5, 3.5], [-1.25, -1.25, -1.25]]] * 2
        assert threads.sums == 1

    def test_all_ranks_look_for_a_stop_equally_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads = RankThreads(monkeypatch, 2)

        def look(rank: int) -> tuple[int, list[int]]:
            asked: list[None] = []
            owned = micro_batches_with_owner([[[0], [1], [2]], [[3]], [[4], [5]]], lambda: asked.append(None))
            return [i for _, group, own in owned if own for i in group], len(asked)

        assert threads.run(look) == [([0, 2, 3, 4], 4), ([1, 5], 4)]

    def test_a_rank_that_leaves_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def leave(rank: int) -> None:
            if rank:
                raise ValueError("gone")
            tell_measurements([torch.zeros(1)])

        with pytest.raises(ValueError, match="gone"):
            RankThreads(monkeypatch, 2).run(leave)
