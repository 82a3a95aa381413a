"""Proximal policy optimisation on one base: policy, reference, reward model and value are adapters and heads over it.

How it departs from, or fixes, what the papers leave open:
1. The score lands on the completion's last token (its end-of-turn), not one state later, unless `score_at` says so.
2. The KL term of the reward is k1 per token by default, against the reference role, at the sampling temperature.
3. Advantages are whitened over the whole rollout batch; returns use the unwhitened ones.
4. Every mini-batch is an optimizer step with its own exact counts: tokens for the policy, states for the value.
5. Old log-probs come from the training forward, so the first ratio is exactly 1.
6. A reward model's scores are less its mean and over its standard deviation on held-out answers; several rewards are
   added up with their weights.
7. The value function is an adapter and head of its own that begin as the reward model; in the first `value_warmup`
   steps it learns alone, because a policy that follows a value that knows nothing follows noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.data.examples import PromptExample
from engine.methods.kl_coefficient import KlCoefficient
from engine.methods.method import ExampleOrder, HeldOutSources, Metric, Terms, Update, mean_and_error, seed_of
from engine.methods.ppo_figures import rollout_metrics
from engine.methods.rewards import Rewards
from engine.methods.rollout import (
    RolloutBatch,
    measure,
    mini_batch_order,
    rollout_seeds,
    sample_policy,
    sample_rows,
    sampling_difference,
)
from engine.methods.score_rules import ScoreRules
from engine.methods.shared_rollouts import sampled_together
from engine.methods.value_function import ValueFunction
from engine.model.adapters import RoleModel
from engine.model.sampler import Completion
from engine.objectives.advantages import generalized_advantages, shaped_rewards, whitened
from engine.objectives.kl import ESTIMATORS
from engine.objectives.kl_loss import LOSS_ESTIMATORS
from engine.objectives.policy_gradient import clipped_policy_loss, clipped_value_loss
from engine.ranks import sum_over_ranks

if TYPE_CHECKING:
    from engine.data.chat import ChatTokenizer
    from engine.run.config_ppo import PpoConfig


class ProximalPolicyOptimisation:
    """PPO-RLHF: sample, score, estimate advantages, then a few clipped updates."""

    def __init__(
        self,
        roles: RoleModel,
        rewards: Rewards,
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
        sources: HeldOutSources | None = None,
    ) -> None:
        """`check` may raise StopRequested while rollouts are made; `on_samples` is given each step's first rollouts."""
        self._roles = roles
        self._rewards = rewards
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
        self._sources = sources or HeldOutSources()
        self.value = ValueFunction(roles, rewards).to(device)
        self._rules = ScoreRules(settings, rewards.terms).to(device)
        adaptive = settings.kl_control == "adaptive"
        self._kl_coefficient = KlCoefficient(
            settings.kl_coef, target=settings.kl_target if adaptive else 0.0, horizon=settings.kl_horizon
        ).to(device)
        self.total_steps = order.total_steps
        self._step_metrics: dict[str, Metric] = {}
        self._update_kl: torch.Tensor = torch.zeros((), device=device)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"value": self.value, "score_rules": self._rules, "kl_coefficient": self._kl_coefficient}

    def step_metrics(self) -> Mapping[str, Metric]:
        return self._step_metrics

    def updates(self, step: int) -> Iterator[Update]:
        settings = self._settings
        indices = self._order.indices(step)
        prompts = [self._train[i] for i in indices]
        completions, batches = self._roll_out("train", indices, prompts, rollout_seeds(self._seed, step, len(prompts)))
        # No stop is looked for from here on: what the run learns of scores and KL belongs to a whole step.
        self._rules.observe(torch.cat([b.raw_DK for b in batches]))
        self._score(batches, training=True)
        warming_up = step < settings.value_warmup
        self._estimate_advantages(batches)
        self._step_metrics = rollout_metrics(batches, completions, settings, self._rewards, self._kl_coefficient.value)
        self._step_metrics |= sampling_difference(batches, completions)
        self._on_samples(step, sample_rows(prompts, completions, batches, self._tokenizer, self._rewards))
        if not warming_up:
            kl_D = torch.cat([b.batch.sum_by_document(b.log_probs_N - b.reference_N) for b in batches])
            self._kl_coefficient.steer(kl_D.mean(), len(prompts))
        made = 0
        for epoch in range(settings.value_warmup_epochs if warming_up else settings.epochs):
            for k in mini_batch_order(batches, self._seed, step, epoch):
                update = self._update([b for b in batches if b.mini_batch == k], made == 0, warming_up)
                self._update_kl = torch.zeros((), device=self._device)
                yield update
                made += 1
                self._step_metrics["policy/updates"] = (0.0 if warming_up else float(made), 1.0)
                if settings.target_kl > 0 and self._measured_kl() > settings.target_kl * update.counts["tokens"]:
                    return

    def _measured_kl(self) -> float:
        """k2 to the policy that sampled, summed over the tokens of the last update, of all processes, in nats."""
        return float(sum_over_ranks(self._update_kl))

    def _update(self, chosen: Sequence[RolloutBatch], first: bool, warming_up: bool) -> Update:
        """One optimizer step over the rollouts of a mini-batch."""
        counts = {
            "tokens": float(sum(len(b.batch.targets_N) for b in chosen)),
            "states": float(sum(sum(b.states.lengths) for b in chosen)),
        }
        # A pass of its own for each role: activations of one are kept at a time.
        own = [b for b in chosen if b.own]
        passes = [] if warming_up else [partial(self._policy_terms, b, first=first) for b in own]
        passes += [partial(self._value_terms, b, free=warming_up) for b in own]
        return Update(counts, passes, sum(b.batch.tokens for b in chosen), shared_out=True)

    def _roll_out(
        self, side: str, places: Sequence[int], prompts: Sequence[PromptExample], seeds: Sequence[int]
    ) -> tuple[list[Completion], list[RolloutBatch]]:
        settings = self._settings
        self._check()
        completions = sampled_together(
            len(prompts),
            lambda mine: sample_policy(
                self._roles,
                [prompts[i] for i in mine],
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                stop_ids=self._tokenizer.stop_ids,
                pad_id=self._tokenizer.pad_id,
                seeds=[seeds[i] for i in mine],
            ),
        )
        self._check()
        batches = measure(
            self._roles,
            self.value,
            self._rewards,
            prompts,
            completions,
            self._rewards.of_texts(side, places, prompts, completions),
            mini_batches=settings.minibatches,
            temperature=settings.temperature,
            post_eos=settings.score_at == "post_eos",
            budget=self._budget,
            device=self._device,
            check=self._check,
        )
        return completions, batches

    def _score(self, batches: Sequence[RolloutBatch], *, training: bool) -> None:
        for b in batches:
            b.score_D = self._rules.scores(b.raw_DK, b.stopped, training=training)

    def _estimate_advantages(self, batches: Sequence[RolloutBatch]) -> None:
        """Fill in advantages and returns: a KL in the reward at each token, the score at each last state."""
        settings = self._settings
        weight = float(self._kl_coefficient.value) if settings.kl_in == "reward" else 0.0
        for b in batches:
            kl_S = torch.zeros_like(b.values_S)
            if settings.kl_in == "reward":
                kl_S[b.states.action_N] = ESTIMATORS[settings.kl_estimator](b.log_probs_N, b.reference_N)
            rewards_S = shaped_rewards(kl_S, b.score_D, b.states.last_D, kl_coef=weight)
            advantages_S, b.returns_S = generalized_advantages(
                rewards_S, b.values_S, b.states.lengths, gamma=settings.gamma, lam=settings.lam
            )
            b.advantages_N = advantages_S.index_select(0, b.states.action_N)
        if settings.whiten:
            all_N = whitened(torch.cat([b.advantages_N for b in batches]))
            for b, part in zip(batches, all_N.split([len(b.advantages_N) for b in batches]), strict=True):
                b.advantages_N = part

    def _policy_terms(self, b: RolloutBatch, *, first: bool) -> Terms:
        settings = self._settings
        scores, _ = self._roles.scores(b.batch, self._roles.trained, temperature=settings.temperature)
        now_N = scores.log_probs_N
        policy_N, ratio_N = clipped_policy_loss(now_N, b.log_probs_N, b.advantages_N, clip=settings.clip)
        loss = policy_N.sum()
        n = float(len(policy_N))
        with torch.no_grad():
            approxkl = 0.5 * (now_N - b.log_probs_N).square().sum()
            self._update_kl = self._update_kl + approxkl
            clipped = ((ratio_N - 1.0).abs() > settings.clip).float().sum()
        metrics: dict[str, Metric] = {
            "loss/policy_avg": (policy_N.sum(), n),
            "policy/approxkl_avg": (approxkl, n),
            "policy/clipfrac_avg": (clipped, n),
            "val/ratio": (ratio_N.detach().sum(), n),
        }
        if settings.kl_in == "loss":
            kl_N = LOSS_ESTIMATORS[settings.kl_estimator](now_N, b.reference_N, b.log_probs_N, b.batch.document_N)
            loss = loss + (self._kl_coefficient.value * kl_N.sum()).to(loss.dtype)
            metrics["loss/kl_avg"] = (kl_N.sum(), n)
        if first:
            metrics["val/first_ratio_deviation"] = ((ratio_N.detach() - 1.0).abs().max(), 1.0)
        return Terms({"tokens": loss}, metrics)

    def _value_terms(self, b: RolloutBatch, *, free: bool) -> Terms:
        """The value loss; `free` of its clipping in warm-up, where nothing follows the value yet."""
        settings = self._settings
        features_SH = self.value.features(b.batch, b.states) if self.value.has_adapter else b.features_SH
        value_S, clipped_S = clipped_value_loss(
            self.value(features_SH), b.values_S, b.returns_S, clip=0.0 if free else settings.clip_value
        )
        n = float(len(value_S))
        return Terms(
            {"states": settings.vf_coef * value_S.sum()},
            {"loss/value_avg": (value_S.sum(), n), "val/clipfrac_avg": (clipped_S.sum(), n)},
        )

    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """Score of completions sampled for held-out prompts, with its standard error over prompts; that of each source,
        too, where there are several."""
        if not self._held_out:
            return {}
        check()
        seeds = [seed_of(self._seed, "held-out", i) for i in range(len(self._held_out))]
        places = range(len(self._held_out))
        completions, batches = self._roll_out("eval", places, self._held_out, seeds)
        self._score(batches, training=False)
        score_of = {i: score for b in batches for i, score in zip(b.indices, b.score_D.tolist(), strict=True)}

        def figures(places: Sequence[int]) -> dict[str, float]:
            score, error = mean_and_error([score_of[i] for i in places])
            return {"eval_objective/scores": score, "eval_objective/scores_standard_error": error}

        return {
            **figures(range(len(self._held_out))),
            **self._rewards.held_out_metrics(torch.cat([b.raw_DK for b in batches])),
            "eval_objective/response_length": sum(len(c.ids) for c in completions) / len(completions),
            **self._sources.figures(figures),
        }
