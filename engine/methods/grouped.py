"""GRPO and RLOO on one base: several completions of each prompt, scored and compared with one another.

How they depart from, or fix, what the papers leave open:
1. There is no value function: a completion's advantage comes from its group, or, for REINFORCE++, from the batch.
2. Old log-probs come from the training forward over the same micro-batches, so the first ratio is exactly 1.
3. Every mini-batch is an optimizer step with its own exact denominator; a group is never divided between two.
4. Scores are made by the rules of PPO: a reward model's less its mean and over its deviation on held-out answers, added
   up with their weights, and a completion cut off by the length limit loses `missing_eos_penalty`.
5. Policy, old and reference log-probs are all at the sampling temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.data.examples import PromptExample
from engine.data.host_copies import on_device
from engine.methods.completion_figures import completion_figures
from engine.methods.group_rollout import GroupBatch, judge_completions, measure_groups
from engine.methods.method import ExampleOrder, HeldOutSources, Metric, Terms, Update, mean_and_error, seed_of
from engine.methods.rewards import Rewards
from engine.methods.rollout import mini_batch_order, rollout_seeds, sample_policy, sample_rows, sampling_difference
from engine.methods.score_rules import ScoreRules
from engine.methods.shared_rollouts import sampled_together
from engine.model.adapters import RoleModel
from engine.model.sampler import Completion
from engine.objectives.group_advantages import (
    batch_normalised_returns,
    group_relative,
    leave_one_out,
    without_spread,
)
from engine.objectives.grouped_policy import GroupedObjective
from engine.objectives.kl import ESTIMATORS
from engine.objectives.kl_loss import LOSS_ESTIMATORS

if TYPE_CHECKING:
    from engine.data.chat import ChatTokenizer
    from engine.run.config_grouped import GrpoConfig, RlooConfig


@dataclass(frozen=True)
class GroupPlan:
    """What tells GRPO and RLOO apart, beside what both take from their settings."""

    objective: GroupedObjective
    compared: str
    """How a completion's reward becomes its advantage: group_mean, leave_one_out or batch."""
    scale: str = "none"
    """group_mean: the standard deviation that advantages are in."""
    reward_kl: str = ""
    """Estimator of the KL that is taken off the score; empty where the KL stands in the loss."""

    @classmethod
    def of_grpo(cls, settings: GrpoConfig) -> GroupPlan:
        """The plan of a [grpo] section."""
        added_up = {"grpo": "sequences", "dr_grpo": "constant"}.get(settings.loss_type, "tokens")
        in_loss = settings.kl_in == "loss"
        objective = GroupedObjective(
            ratio_level="token" if settings.importance_level == "token" else "sequence_mean",
            surrogate="cispo" if settings.loss_type == "cispo" else "clip",
            clip_low=settings.clip,
            clip_high=settings.clip_high,
            added_up=added_up,
            longest=settings.max_new_tokens,
            kl_coef=settings.kl_coef if in_loss else 0.0,
            kl_estimator=settings.kl_estimator,
        )
        return cls(objective, "group_mean", settings.scale_rewards, "" if in_loss else settings.kl_estimator)

    @classmethod
    def of_rloo(cls, settings: RlooConfig) -> GroupPlan:
        """The plan of an [rloo] section."""
        whole = settings.baseline == "leave_one_out"
        objective = GroupedObjective(
            ratio_level="sequence_sum" if whole else "token",
            clip_low=settings.clip,
            clip_high=settings.clip_high,
            added_up="sequences" if whole else "tokens",
        )
        return cls(objective, settings.baseline, reward_kl=settings.kl_estimator)


class GroupedPolicyOptimisation:
    """GRPO, RLOO and their kin: sample groups, score, compare, then a few clipped updates."""

    def __init__(
        self,
        roles: RoleModel,
        rewards: Rewards,
        train: Sequence[PromptExample],
        held_out: Sequence[PromptExample],
        order: ExampleOrder,
        tokenizer: ChatTokenizer,
        settings: GrpoConfig | RlooConfig,
        plan: GroupPlan,
        *,
        seed: int,
        tokens_per_micro_batch: int,
        device: torch.device,
        check: Callable[[], None],
        on_samples: Callable[[int, list[dict[str, Any]]], None],
        sources: HeldOutSources | None = None,
    ) -> None:
        """`order` counts prompts. `check` may raise StopRequested while completions are made; `on_samples` is given
        some of each step's completions.
        """
        self._roles = roles
        self._rewards = rewards
        self._rules = ScoreRules(settings, rewards.terms).to(device)
        self._train = train
        self._held_out = held_out
        self._order = order
        self._tokenizer = tokenizer
        self._settings = settings
        self._plan = plan
        self._seed = seed
        self._budget = tokens_per_micro_batch
        self._device = device
        self._check = check
        self._on_samples = on_samples
        self._sources = sources or HeldOutSources()
        self.total_steps = order.total_steps
        self._step_metrics: dict[str, Metric] = {}

    def modules(self) -> Mapping[str, nn.Module]:
        return {"score_rules": self._rules}

    def step_metrics(self) -> Mapping[str, Metric]:
        return self._step_metrics

    def updates(self, step: int) -> Iterator[Update]:
        generations = self._settings.generations
        indices = self._order.indices(step)
        prompts = [self._train[i] for i in indices]
        asked = [prompt for prompt in prompts for _ in range(generations)]
        completions = self._sampled(asked, rollout_seeds(self._seed, step, len(asked)), group=generations)
        self._check()
        places = [i for i in indices for _ in range(generations)]
        told_DK = self._rewards.of_texts("train", places, asked, completions)
        batches = measure_groups(
            self._roles, self._rewards, prompts, completions, told_DK,
            mini_batches=self._settings.minibatches, temperature=self._settings.temperature, budget=self._budget,
            device=self._device, check=self._check,
        )  # fmt: skip
        # No stop is looked for from here on: what the run learns of scores belongs to a whole step.
        self._rules.observe(torch.cat([b.raw_DK for b in batches]))
        for b in batches:
            b.score_D = self._rules.scores(b.raw_DK, b.stopped)
        flat_P = self._compare(batches, completions)
        self._step_metrics = {**self._rollout_metrics(batches), **_lengths_of(completions), **_flatness(flat_P)}
        self._step_metrics |= sampling_difference(batches, completions)
        shown = [g * generations + i for g in range(4) for i in range(min(2, generations))]
        self._on_samples(step, sample_rows(asked, completions, batches, self._tokenizer, self._rewards, shown=shown))
        first = True
        for epoch in range(self._settings.epochs):
            for k in mini_batch_order(batches, self._seed, step, epoch):
                chosen = [b for b in batches if b.mini_batch == k and any(b.counted)]
                if not chosen:
                    continue  # no completion of it takes part in the loss
                lengths = [length for b in chosen for length in b.counted_lengths]
                yield Update(
                    {"completions": self._plan.objective.denominator(lengths)},
                    [partial(self._terms, b, first) for b in chosen if b.own],
                    sum(b.batch.tokens for b in chosen),
                    shared_out=True,
                )
                first = False

    def _sampled(self, prompts: Sequence[PromptExample], seeds: Sequence[int], *, group: int = 1) -> list[Completion]:
        """One completion a prompt; `group` of them in a row are sampled by one process."""
        settings, tokenizer = self._settings, self._tokenizer

        def sample(mine: list[int]) -> list[Completion]:
            return sample_policy(
                self._roles, [prompts[i] for i in mine], max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature, stop_ids=tokenizer.stop_ids, pad_id=tokenizer.pad_id,
                seeds=[seeds[i] for i in mine],
            )  # fmt: skip

        self._check()
        return sampled_together(len(prompts), sample, group=group)

    def _compare(self, batches: Sequence[GroupBatch], completions: Sequence[Completion]) -> torch.Tensor:
        """Fill in each completion's advantage and whether it counts; returns which groups are flat, bool (P,)."""
        settings, plan = self._settings, self._plan
        reward_R = torch.zeros(len(completions), device=self._device)
        for b in batches:
            penalty_D = self._penalty(b)
            reward_D = b.score_D if penalty_D is None else b.score_D - settings.kl_coef * penalty_D
            reward_R.index_copy_(0, b.places_D, reward_D)
        reward_PG = reward_R.view(-1, settings.generations)
        flat_P = without_spread(reward_PG)
        left_out_R = flat_P.repeat_interleave(settings.generations) & (settings.flat_groups == "skip")
        if settings.mask_truncated:
            left_out_R |= on_device([not c.stopped for c in completions], self._device)
        left_out = left_out_R.tolist()
        for b in batches:
            b.counted = [not left_out[i] for i in b.indices]
        if plan.compared == "batch":
            self._compare_with_the_batch(batches)
            return flat_P
        compared = leave_one_out if plan.compared == "leave_one_out" else partial(group_relative, scale=plan.scale)
        # Equal scores differ by rounding, which a group's own deviation would blow up.
        advantage_R = compared(reward_PG).masked_fill(flat_P.unsqueeze(1), 0.0).flatten()
        for b in batches:
            b.advantages_N = advantage_R.index_select(0, b.places_D).index_select(0, b.batch.document_N)
        return flat_P

    def _penalty(self, b: GroupBatch) -> torch.Tensor | None:
        """KL of each completion by the estimator that is taken off its score, (D,), nats; None where none is."""
        if not self._plan.reward_kl:
            return None
        return b.batch.sum_by_document(ESTIMATORS[self._plan.reward_kl](b.log_probs_N, b.reference_N))

    def _compare_with_the_batch(self, batches: Sequence[GroupBatch]) -> None:
        estimator = ESTIMATORS[self._plan.reward_kl]
        lengths = [length for b in batches for length in b.batch.targets_per_document]
        advantages_N = batch_normalised_returns(
            torch.cat([estimator(b.log_probs_N, b.reference_N) for b in batches]),
            torch.cat([b.score_D for b in batches]),
            on_device(lengths, self._device).cumsum(0) - 1,
            lengths,
            kl_coef=self._settings.kl_coef,
        )
        for b, part in zip(batches, advantages_N.split([len(b.log_probs_N) for b in batches]), strict=True):
            b.advantages_N = part

    def _terms(self, b: GroupBatch, first: bool) -> Terms:
        objective, document_N = self._plan.objective, b.batch.document_N
        scores, _ = self._roles.scores(b.batch, self._roles.trained, temperature=self._settings.temperature)
        found = objective.token_losses(
            scores.log_probs_N, b.log_probs_N, b.reference_N, b.advantages_N, document_N, b.tokens_D
        )
        loss = (found.loss_N * b.counted_N).sum()
        with torch.no_grad():
            metrics = self._update_metrics(b, scores.log_probs_N, found.ratio_N)
            if first:
                metrics["val/first_ratio_deviation"] = ((found.ratio_N - 1.0).abs().max(), 1.0)
        return Terms({"completions": loss}, metrics)

    def _update_metrics(self, b: GroupBatch, log_probs_N: torch.Tensor, ratio_N: torch.Tensor) -> dict[str, Metric]:
        objective, document_N, counted_N = self._plan.objective, b.batch.document_N, b.counted_N
        tokens = float(sum(b.counted_lengths))
        low_N, high_N = objective.clipped(ratio_N, b.advantages_N)
        # A ratio of whole completions counts once for each completion.
        by_token = objective.ratio_level == "token"
        weight_N = counted_N if by_token else counted_N / b.tokens_D.index_select(0, document_N)
        n = tokens if by_token else float(len(b.counted_lengths))
        metrics: dict[str, Metric] = {
            "clip_ratio/low_mean": ((low_N * weight_N).sum(), n),
            "clip_ratio/high_mean": ((high_N * weight_N).sum(), n),
            "clip_ratio/region_mean": (((low_N | high_N) * weight_N).sum(), n),
            "policy/approxkl_avg": ((0.5 * (log_probs_N - b.log_probs_N).square() * counted_N).sum(), tokens),
        }
        if objective.kl_coef:
            estimator = LOSS_ESTIMATORS[objective.kl_estimator]
            kl_N = estimator(log_probs_N, b.reference_N, b.log_probs_N, document_N)
            metrics["loss/kl_avg"] = ((kl_N * counted_N).sum(), tokens)
        return metrics

    def _rollout_metrics(self, batches: Sequence[GroupBatch]) -> dict[str, Metric]:
        score_D = torch.cat([b.score_D for b in batches])
        kl_N = torch.cat([b.log_probs_N - b.reference_N for b in batches])
        entropy_N = torch.cat([b.entropy_N for b in batches])
        n = float(len(score_D))
        metrics: dict[str, Metric] = {
            "reward": (score_D.sum(), n),
            "reward_std": (score_D.std() if n > 1 else 0.0, 1.0),
            "objective/kl": (kl_N.sum(), n),
            "entropy": (entropy_N.sum(), float(len(entropy_N))),
            **self._rewards.metrics(torch.cat([b.raw_DK for b in batches])),
        }
        penalties = [self._penalty(b) for b in batches]
        if self._plan.reward_kl:
            non_score = sum(-self._settings.kl_coef * p.sum() for p in penalties if p is not None)
            metrics["objective/non_score_reward"] = (non_score, n)
        return metrics

    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """Score of one completion for each held-out prompt, with its standard error over prompts; that of each
        source, too, where there are several.
        """
        if not self._held_out:
            return {}
        check()
        seeds = [seed_of(self._seed, "held-out", i) for i in range(len(self._held_out))]
        completions = self._sampled(self._held_out, seeds)
        raw_DK = judge_completions(
            self._roles, self._rewards, self._held_out, completions,
            self._rewards.of_texts("eval", range(len(completions)), self._held_out, completions),
            budget=self._budget, device=self._device, check=check,
        )  # fmt: skip
        scores = self._rules.scores(raw_DK, [c.stopped for c in completions], training=False).tolist()

        def figures(places: Sequence[int]) -> dict[str, float]:
            score, error = mean_and_error([scores[i] for i in places])
            return {"eval_reward": score, "eval_reward_standard_error": error}

        return {
            **figures(range(len(scores))),
            **self._rewards.held_out_metrics(raw_DK),
            "eval_completions/mean_length": sum(len(c.ids) for c in completions) / len(completions),
            **self._sources.figures(figures),
        }


def _lengths_of(completions: Sequence[Completion]) -> dict[str, Metric]:
    lengths = [float(len(c.ids)) for c in completions]
    return {
        "completions/mean_length": (sum(lengths), float(len(lengths))),
        "completions/min_length": (min(lengths), 1.0),
        "completions/max_length": (max(lengths), 1.0),
        **completion_figures(completions),
    }


def _flatness(flat_P: torch.Tensor) -> dict[str, Metric]:
    return {"frac_reward_zero_std": (flat_P.float().sum(), float(len(flat_P)))}
