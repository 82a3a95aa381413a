"""GRPO and RLOO on the tiny model: groups, advantages, denominators, what is left out, and one prompt for a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.methods import grouped
from engine.methods.group_rollout import GroupBatch, documents_of
from engine.methods.grouped import GroupedPolicyOptimisation, GroupPlan
from engine.methods.method import ExampleOrder, Update
from engine.methods.rewards import Rewards
from engine.methods.score_rules import ScoreRules
from engine.model.adapters import POLICY, REWARD, build_roles
from engine.model.heads import ScalarHead, ScoreScale
from engine.model.sampler import Completion
from engine.model.saving import save_weights
from engine.run.config_grouped import GrpoConfig, RlooConfig

PROMPTS = [PromptExample(f"p{i}", tuple(range(10, 14 + i)), f"prompt {i}") for i in range(4)]
SHAPE: dict[str, Any] = {"max_new_tokens": 6, "generations": 3, "kl_coef": 0.3}
VARIANTS = {
    "grpo": GrpoConfig(**SHAPE, loss_type="grpo", scale_rewards="group", kl_estimator="k3"),
    "dapo": GrpoConfig(**SHAPE, clip_high=0.28),
    "dr_grpo": GrpoConfig(**SHAPE, loss_type="dr_grpo", kl_estimator="k3_prefix"),
    "gspo": GrpoConfig(**SHAPE, loss_type="grpo", importance_level="sequence"),
    "cispo": GrpoConfig(**SHAPE, loss_type="cispo", clip_high=4.0, scale_rewards="batch"),
    "kl in the reward": GrpoConfig(**SHAPE, kl_in="reward", kl_estimator="k1"),
    "rloo": RlooConfig(**SHAPE),
    "reinforce++": RlooConfig(**SHAPE, baseline="batch"),
}


@pytest.fixture
def make(
    tiny_model_folder: Path, tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[GroupedPolicyOptimisation, list[GroupBatch]]]:
    """A method over a policy that has left its reference, and the list that its measured batches go into."""
    from engine.model.loading import load_causal_lm

    judge = build_roles(tiny_model, kind="lora", trained=REWARD, start_adapter=None, rank=4)
    head = ScalarHead(32, seed=3)
    save_weights(judge, tmp_path, base_folder=tiny_model_folder, reward_head=head)
    captured: list[GroupBatch] = []
    measure = grouped.measure_groups

    def capture(*arguments: Any, **options: Any) -> list[GroupBatch]:
        captured[:] = measure(*arguments, **options)
        return captured

    monkeypatch.setattr(grouped, "measure_groups", capture)

    def build(
        settings: GrpoConfig | RlooConfig, budget: int = 60
    ) -> tuple[GroupedPolicyOptimisation, list[GroupBatch]]:
        base = load_causal_lm(tiny_model_folder, dtype=torch.float32, device="cpu")
        roles = build_roles(base, kind="lora", trained=POLICY, start_adapter=None, rank=4, reward_adapters=[tmp_path])
        with torch.no_grad():
            for parameter in roles.trainable.values():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
        plan = GroupPlan.of_grpo(settings) if isinstance(settings, GrpoConfig) else GroupPlan.of_rloo(settings)
        method = GroupedPolicyOptimisation(
            roles, Rewards.of_model(head, ScoreScale(0.4, 2.0)), PROMPTS, PROMPTS[:2],
            ExampleOrder(4, batch_size=4, epochs=1, steps=2, seed=1), ChatTokenizer.from_folder(tiny_model_folder),
            settings, plan, seed=1, tokens_per_micro_batch=budget, device=torch.device("cpu"), check=lambda: None,
            on_samples=lambda step, rows: None,
        )  # fmt: skip
        return method, captured

    return build


def by_completion(batches: list[GroupBatch], of: Callable[[GroupBatch], torch.Tensor]) -> list[torch.Tensor]:
    """A per-token quantity of each completion, in the order of the completions."""
    found = {
        i: part for b in batches for i, part in zip(b.indices, of(b).split(b.batch.targets_per_document), strict=True)
    }
    return [found[i] for i in sorted(found)]


def loss_of(update: Update, method: GroupedPolicyOptimisation) -> tuple[float, list[torch.Tensor], dict[str, Any]]:
    """Loss, gradients and the first micro-batch's metrics of one update."""
    parameters = list(method._roles.trainable.values())
    for parameter in parameters:
        parameter.grad = None
    terms = [run() for run in update.micro_batches]
    loss = torch.stack([t.losses["completions"] for t in terms]).sum() / update.counts["completions"]
    loss.backward()
    return loss.item(), [p.grad.clone() for p in parameters if p.grad is not None], dict(terms[0].metrics)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_first_ratio_is_exactly_1_and_micro_batches_change_nothing(make: Any, name: str) -> None:
    found = []
    for budget in (20, 4096):
        method, batches = make(VARIANTS[name], budget)
        updates = method.updates(0)
        found.append(loss_of(next(updates), method))
        assert (len(batches) > 4) is (budget == 20)
    (few, few_gradients, metrics), (many, many_gradients, _) = found
    assert metrics["val/first_ratio_deviation"][0].item() == 0.0
    assert metrics["clip_ratio/region_mean"][0].item() == 0.0
    assert metrics["policy/approxkl_avg"][0].item() == 0.0
    assert few == pytest.approx(many, rel=1e-4, abs=1e-6)
    largest = max(float(g.abs().max()) for g in many_gradients)
    assert largest > 1e-3
    assert all((a - b).abs().max() < 1e-5 * largest for a, b in zip(few_gradients, many_gradients, strict=True))


@pytest.mark.parametrize("name", VARIANTS)
def test_advantages_follow_their_definition(make: Any, name: str) -> None:
    settings = VARIANTS[name]
    method, batches = make(settings)
    list(method.updates(0))
    score = [float(s) for _, s in sorted((i, s) for b in batches for i, s in zip(b.indices, b.score_D, strict=True))]
    log_ratio = by_completion(batches, lambda b: b.log_probs_N - b.reference_N)
    in_reward = isinstance(settings, RlooConfig) or settings.kl_in == "reward"
    reward = torch.tensor([s - 0.3 * float(k.sum()) * in_reward for s, k in zip(score, log_ratio, strict=True)])
    groups = reward.view(4, 3)
    if name == "reinforce++":
        to_come = [s - 0.3 * k.flip(0).cumsum(0).flip(0) for s, k in zip(score, log_ratio, strict=True)]
        whole = torch.cat(to_come)
        expected = [(part - whole.mean()) / whole.std() for part in to_come]
    else:
        mean = (groups.sum(1, keepdim=True) - groups) / 2 if name == "rloo" else groups.mean(1, keepdim=True)
        deviation = {"grpo": groups.std(1, keepdim=True), "cispo": groups.std()}.get(name, torch.tensor(1.0))
        flat = ((groups - mean) / deviation).flatten()
        assert ((groups - mean) / deviation).sum(1).abs().max() < 1e-5
        expected = [a.expand(len(k)) for a, k in zip(flat, log_ratio, strict=True)]
    for a, b in zip(by_completion(batches, lambda b: b.advantages_N), expected, strict=True):
        assert torch.allclose(a, b, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "of"), [("dapo", sum), ("grpo", len), ("dr_grpo", lambda x: 6 * len(x))])
def test_every_mini_batch_has_its_own_exact_denominator(make: Any, name: str, of: Any) -> None:
    method, batches = make(VARIANTS[name])
    counts = [update.counts["completions"] for update in method.updates(0)]
    lengths = [[n for b in batches if b.mini_batch == k for n in b.batch.targets_per_document] for k in (0, 1)]
    assert counts[:2] == [float(of(part)) for part in lengths]
    assert sorted(counts[2:]) == sorted(counts[:2])
    assert {i // 3 % 2 for b in batches if b.mini_batch == 1 for i in b.indices} == {1}


def test_a_prompt_goes_through_the_model_once_for_its_group(make: Any) -> None:
    method, batches = make(VARIANTS["dapo"], 4096)
    tokens = [update.tokens for update in method.updates(0)]
    completions = sum(n for b in batches for n in b.batch.targets_per_document)
    assert sum(tokens) == 2 * (sum(len(p.prompt) for p in PROMPTS) + completions)
    # A group that is divided brings its prompt again.
    six = [Completion([50 + i], False, [0.0]) for i in range(6)]
    assert [d.shared for d in documents_of(PROMPTS[:2], six, [0, 1, 4, 5])] == [0, 4, 0, 5]


class TestLeftOut:
    def test_flat_groups_are_told_and_skipped_where_asked(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ScoreRules, "scores", lambda rules, raw_DK, stopped: torch.zeros(len(raw_DK)))
        kept, _ = make(GrpoConfig(**SHAPE))
        assert len(list(kept.updates(0))) == 4
        assert kept.step_metrics()["frac_reward_zero_std"] == (torch.tensor(4.0), 4.0)
        skipping, _ = make(GrpoConfig(**SHAPE, flat_groups="skip"))
        assert list(skipping.updates(0)) == []

    def test_one_flat_group_leaves_loss_and_denominator(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        real = grouped.without_spread

        def first_is_flat(score_PG: torch.Tensor) -> torch.Tensor:
            return real(score_PG) | (torch.arange(len(score_PG)) == 0)

        monkeypatch.setattr(grouped, "without_spread", first_is_flat)
        method, batches = make(GrpoConfig(**SHAPE, flat_groups="skip"))
        update = next(method.updates(0))
        third = [
            n for b in batches for i, n in zip(b.indices, b.batch.targets_per_document, strict=True) if i // 3 == 2
        ]
        assert update.counts["completions"] == sum(third)
        assert {i // 3 for b in batches for i, c in zip(b.indices, b.counted, strict=True) if not c} == {0}

    def test_truncated_completions_take_no_part(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        sampled = grouped.sample_policy

        def every_second_ends(*arguments: Any, **options: Any) -> list[Completion]:
            return [replace(c, stopped=i % 2 == 0) for i, c in enumerate(sampled(*arguments, **options))]

        monkeypatch.setattr(grouped, "sample_policy", every_second_ends)
        method, batches = make(GrpoConfig(**SHAPE, mask_truncated=True))
        update = next(method.updates(0))
        assert [b.counted for b in batches] == [[i % 2 == 0 for i in b.indices] for b in batches]
        lengths = {i: n for b in batches for i, n in zip(b.indices, b.batch.targets_per_document, strict=True)}
        assert update.counts["completions"] == sum(lengths[i] for i in (0, 2, 6, 8))
        # They still count in their group's mean, and their own advantage moves nothing.
        before = loss_of(update, method)
        for b in batches:
            b.advantages_N = b.advantages_N + 100.0 * (1.0 - b.counted_N)
        after = loss_of(update, method)
        assert after[0] == before[0]
        assert all(torch.equal(x, y) for x, y in zip(after[1], before[1], strict=True))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "reinforce++"])
@pytest.mark.parametrize("flat_groups", ["keep", "skip"])
def test_completions_that_are_all_the_same_teach_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch, name: str, flat_groups: str
) -> None:
    sampled = grouped.sample_policy

    def first_of_each_group(*arguments: Any, **options: Any) -> list[Completion]:
        found = sampled(*arguments, **options)
        return [found[i - i % 3] for i in range(len(found))]

    monkeypatch.setattr(grouped, "sample_policy", first_of_each_group)
    method, batches = make(replace(VARIANTS[name], flat_groups=flat_groups), budget=4096)
    updates = list(method.updates(0))
    flat, groups = method.step_metrics()["frac_reward_zero_std"]
    assert float(flat) == groups == 4
    assert all(not b.advantages_N.any() for b in batches)
    if flat_groups == "skip":
        assert not updates, "no completion takes part, so no step is made"
    else:
        loss, gradients, _ = loss_of(updates[0], method)
        assert abs(loss) < float("inf")
        assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("moved_by", [0.0, 0.25])
def test_how_far_sampling_was_from_training_is_told(
    make: Any, monkeypatch: pytest.MonkeyPatch, moved_by: float
) -> None:
    sampled = grouped.sample_policy

    def moved(*arguments: Any, **options: Any) -> list[Completion]:
        found = sampled(*arguments, **options)
        return [replace(c, log_probs=[value + moved_by for value in c.log_probs]) for c in found]

    monkeypatch.setattr(grouped, "sample_policy", moved)
    method, batches = make(VARIANTS["dapo"])
    next(method.updates(0))
    total, tokens = method.step_metrics()["sampling/sampling_logp_difference/mean"]
    assert tokens == sum(len(b.log_probs_N) for b in batches)
    assert float(total) / tokens == pytest.approx(moved_by, abs=1e-5)


def test_held_out_scores_are_those_of_the_reward_model(make: Any) -> None:
    method, _ = make(VARIANTS["dapo"])
    found = method.evaluate(lambda: None)
    assert set(found) == {"eval_reward", "eval_reward_standard_error", "eval_completions/mean_length"}
    assert found == method.evaluate(lambda: None)
