"""Proximal policy optimisation on one base: policy, reference and reward model are adapters, the value is a head.

How it departs from, or fixes, what the papers leave open:
1. The score lands on the completion's last token (its end-of-turn); a completion cut off by the length limit loses
   `missing_eos_penalty` from its score.
2. The KL term of the reward is k1 per token by default, against the reference role, at the sampling temperature.
3. Advantages are whitened over the whole rollout batch; returns use the unwhitened ones.
4. Every mini-batch is an optimizer step with its own exact token count.
5. Old log-probs come from the training forward, so the first ratio is exactly 1.
6. Scores are the reward model's, less its mean and over its standard deviation on held-out answers.
7. The value head reads the frozen reward model's hidden states and begins as its normalised score. It costs no forward
   pass of its own, its loss does not pull at the policy, and it knows from the first step which prefixes go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.data.examples import PromptExample
from engine.methods.method import ExampleOrder, Metric, Terms, Update, mean_and_error, seed_of
from engine.methods.rollout import RolloutBatch, measure, rollout_seeds, sample_policy
from engine.model.adapters import RoleModel
from engine.model.heads import ScalarHead, value_head_from
from engine.model.sampler import Completion
from engine.objectives.advantages import explained_variance, generalized_advantages, shaped_rewards, whitened
from engine.objectives.kl import ESTIMATORS
from engine.objectives.policy_gradient import clipped_policy_loss, clipped_value_loss

if TYPE_CHECKING:
    from engine.data.chat import ChatTokenizer
    from engine.run.config import PpoConfig


class ProximalPolicyOptimisation:
    """PPO-RLHF: sample, score, estimate advantages, then a few clipped updates."""

    def __init__(
        self,
        roles: RoleModel,
        reward_head: ScalarHead,
        score_mean: float,
        score_std: float,
        train: Sequence[PromptExample],
        held_out: Sequence[PromptExample],
        order: ExampleOrder,
        tokenizer: ChatTokenizer,
        settings: PpoConfig,
        *,
        seed: int,
        tokens_per_micro_batch: int,
        device: torch.device,
        check: Callable[[], None],
        on_samples: Callable[[int, list[dict[str, Any]]], None],
    ) -> None:
        """`check` may raise StopRequested while rollouts are made; `on_samples` is given each step's first rollouts."""
        self._roles = roles
        self._reward_head = reward_head
        self._score_mean = score_mean
        self._score_std = score_std
        self._train = train
        self._held_out = held_out
        self._order = order
        self._tokenizer = tokenizer
        self._settings = settings
        self._seed = seed
        self._budget = tokens_per_micro_batch
        self._device = device
        self._check = check
        self._on_samples = on_samples
        self.value_head = value_head_from(reward_head, mean=score_mean, std=score_std).to(device)
        self.total_steps = order.total_steps
        self._step_metrics: dict[str, Metric] = {}
        self._over_target = False

    def modules(self) -> Mapping[str, nn.Module]:
        return {"value_head": self.value_head}

    def step_metrics(self) -> Mapping[str, Metric]:
        return self._step_metrics

    def updates(self, step: int) -> Iterator[Update]:
        prompts = [self._train[i] for i in self._order.indices(step)]
        seeds = rollout_seeds(self._seed, step, len(prompts))
        completions, batches = self._roll_out(prompts, seeds)
        self._estimate_advantages(batches)
        self._step_metrics = self._rollout_metrics(batches, completions)
        self._on_samples(step, sample_rows(prompts, completions, batches, self._tokenizer))
        self._over_target = False
        for epoch in range(self._settings.epochs):
            for k in self._mini_batch_order(batches, step, epoch):
                if self._over_target:
                    return
                chosen = [b for b in batches if b.mini_batch == k]
                first = epoch == 0 and k == 0
                yield Update(
                    {"tokens": float(sum(len(b.batch.targets_N) for b in chosen))},
                    [partial(self._terms, b, first) for b in chosen],
                    sum(b.batch.tokens for b in chosen),
                )

    def _roll_out(
        self, prompts: Sequence[PromptExample], seeds: Sequence[int]
    ) -> tuple[list[Completion], list[RolloutBatch]]:
        settings = self._settings
        self._check()
        completions = sample_policy(
            self._roles,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            stop_ids=self._tokenizer.stop_ids,
            pad_id=self._tokenizer.pad_id,
            seeds=seeds,
        )
        batches = measure(
            self._roles,
            self.value_head,
            self._reward_head,
            prompts,
            completions,
            mini_batches=settings.minibatches,
            temperature=settings.temperature,
            budget=self._budget,
            device=self._device,
            score_of=self._score_of,
            check=self._check,
        )
        return completions, batches

    def _score_of(self, raw_D: torch.Tensor, completions: Sequence[Completion]) -> torch.Tensor:
        """Normalised rewards minus the penalty of completions that did not end, clipped where asked for."""
        cut_off = torch.tensor([0.0 if c.stopped else 1.0 for c in completions], device=raw_D.device)
        score_D = (raw_D - self._score_mean) / self._score_std - self._settings.missing_eos_penalty * cut_off
        limit = self._settings.score_clip
        return score_D.clamp(-limit, limit) if limit > 0 else score_D

    def _estimate_advantages(self, batches: Sequence[RolloutBatch]) -> None:
        settings = self._settings
        estimator = ESTIMATORS[settings.kl_estimator]
        for b in batches:
            kl_N = estimator(b.log_probs_N, b.reference_N)
            rewards_N = shaped_rewards(kl_N, b.score_D, b.last_N, kl_coef=settings.kl_coef)
            b.advantages_N, b.returns_N = generalized_advantages(
                rewards_N, b.values_N, b.batch.targets_per_document, gamma=settings.gamma, lam=settings.lam
            )
        if settings.whiten:
            all_N = whitened(torch.cat([b.advantages_N for b in batches]))
            for b, part in zip(batches, all_N.split([len(b.advantages_N) for b in batches]), strict=True):
                b.advantages_N = part

    def _mini_batch_order(self, batches: Sequence[RolloutBatch], step: int, epoch: int) -> list[int]:
        """The mini-batches of one pass over the rollouts: in order first, shuffled in later epochs."""
        count = max(b.mini_batch for b in batches) + 1
        if epoch == 0:
            return list(range(count))
        generator = torch.Generator().manual_seed(seed_of(self._seed, "minibatches", step, epoch))
        order: list[int] = torch.randperm(count, generator=generator).tolist()
        return order

    def _terms(self, b: RolloutBatch, first: bool) -> Terms:
        settings = self._settings
        scores, _ = self._roles.scores(b.batch, self._roles.trained, temperature=settings.temperature)
        values_N = self.value_head(b.features_NH)
        policy_N, ratio_N = clipped_policy_loss(scores.log_probs_N, b.log_probs_N, b.advantages_N, clip=settings.clip)
        value_N, value_clipped_N = clipped_value_loss(values_N, b.values_N, b.returns_N, clip=settings.clip_value)
        loss = policy_N.sum() + settings.vf_coef * value_N.sum()
        n = float(len(policy_N))
        with torch.no_grad():
            logratio_N = scores.log_probs_N - b.log_probs_N
            approxkl = 0.5 * logratio_N.square().sum()
            clipped = ((ratio_N - 1.0).abs() > settings.clip).float().sum()
        if settings.target_kl > 0 and (approxkl / n).item() > settings.target_kl:
            self._over_target = True
        metrics: dict[str, Metric] = {
            "loss/policy_avg": (policy_N.sum(), n),
            "loss/value_avg": (value_N.sum(), n),
            "policy/approxkl_avg": (approxkl, n),
            "policy/clipfrac_avg": (clipped, n),
            "val/clipfrac_avg": (value_clipped_N.sum(), n),
            "val/ratio": (ratio_N.detach().sum(), n),
        }
        if first:
            metrics["val/first_ratio_deviation"] = ((ratio_N.detach() - 1.0).abs().max(), 1.0)
        return Terms({"tokens": loss}, metrics)

    def _rollout_metrics(self, batches: Sequence[RolloutBatch], completions: Sequence[Completion]) -> dict[str, Metric]:
        n = float(len(completions))
        kl_D = torch.cat([b.batch.sum_by_document(b.log_probs_N - b.reference_N) for b in batches])
        penalty_D = torch.cat(
            [
                b.batch.sum_by_document(ESTIMATORS[self._settings.kl_estimator](b.log_probs_N, b.reference_N))
                for b in batches
            ]
        )
        score_D = torch.cat([b.score_D for b in batches])
        entropy_D = torch.cat([b.batch.sum_by_document(b.entropy_N) for b in batches])
        values_N = torch.cat([b.values_N for b in batches])
        returns_N = torch.cat([b.returns_N for b in batches])
        non_score = -self._settings.kl_coef * penalty_D.sum()
        lengths = [len(c.ids) for c in completions]
        return {
            "objective/kl": (kl_D.sum(), n),
            "objective/entropy": (entropy_D.sum(), n),
            "objective/scores": (score_D.sum(), n),
            "objective/scores_std": (score_D.std(unbiased=False), 1.0),
            "objective/non_score_reward": (non_score, n),
            "objective/rlhf_reward": (score_D.sum() + non_score, n),
            "objective/kl_coef": (self._settings.kl_coef, 1.0),
            "objective/response_length": (float(sum(lengths)), n),
            "val/num_eos_tokens": (float(sum(c.stopped for c in completions)), 1.0),
            "val/explained_variance": (explained_variance(values_N, returns_N), 1.0),
        }

    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """Score of completions sampled for held-out prompts, with its standard error over prompts."""
        if not self._held_out:
            return {}
        check()
        seeds = [seed_of(self._seed, "held-out", i) for i in range(len(self._held_out))]
        completions, batches = self._roll_out(self._held_out, seeds)
        score, error = mean_and_error(torch.cat([b.score_D for b in batches]).tolist())
        length = sum(len(c.ids) for c in completions) / len(completions)
        return {
            "eval_objective/scores": score,
            "eval_objective/scores_standard_error": error,
            "eval_objective/response_length": length,
        }


def sample_rows(
    prompts: Sequence[PromptExample],
    completions: Sequence[Completion],
    batches: Sequence[RolloutBatch],
    tokenizer: ChatTokenizer,
    limit: int = 8,
) -> list[dict[str, Any]]:
    """The first rollouts of a step as rows of samples.jsonl, with per-token log-ratios to the reference in nats."""
    place = {index: (b, d) for b in batches for d, index in enumerate(b.indices)}
    rows = []
    for i in range(min(limit, len(prompts))):
        b, d = place[i]
        logratio = (b.log_probs_N - b.reference_N)[b.batch.document_N == d]
        rows.append(
            {
                "prompt_id": prompts[i].id,
                "prompt": prompts[i].text,
                "completion": tokenizer.decode(completions[i].ids),
                "reward": float(b.score_D[d]),
                "logratio": [round(x, 5) for x in logratio.tolist()],
                "length": len(completions[i].ids),
                "stopped": completions[i].stopped,
            }
        )
    return rows
