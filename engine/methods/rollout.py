"""Rollouts: completions sampled from the current policy, with what the update needs to know of each token.

Log-probs of policy and reference, values and rewards come from the training forward over fixed packed micro-batches,
never from the sampler's cache: the first mini-batch of an update packs the same documents in the same way, so its
ratio is exactly 1. Shapes: N completion tokens of a micro-batch, D completions, K rewards, S states
that have a value, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from engine.data.examples import PromptExample
from engine.data.host_copies import on_device
from engine.data.packing import Document, PackedBatch, pack
from engine.data.token_places import token_ends
from engine.methods.method import Metric, seed_of
from engine.methods.rewards import Rewards
from engine.methods.shared_rollouts import micro_batches_with_owner, tell_measurements
from engine.methods.value_function import ValueFunction, ValueStates, value_states
from engine.model.adapters import POLICY, REFERENCE, RoleModel
from engine.model.sampler import Completion, sample
from engine.ranks import balanced_groups

if TYPE_CHECKING:
    from engine.data.chat import ChatTokenizer


def _to_come() -> torch.Tensor:
    return torch.zeros(0)


@dataclass(frozen=True)
class TokenMeasurements:
    """What policy and reference say of the tokens of a micro-batch before the update, without gradient, (N,) each."""

    log_probs_N: torch.Tensor
    """log p of the policy that sampled, from the training forward, nats."""
    reference_N: torch.Tensor
    """log p of the reference, nats."""
    entropy_N: torch.Tensor
    """Entropy of the policy at each token, nats."""
    reference_TH: torch.Tensor | None = None
    """Hidden states of the reference, in the model's precision."""

    @classmethod
    def of(cls, roles: RoleModel, batch: PackedBatch, *, temperature: float, own: bool) -> TokenMeasurements:
        """Measured here, or, where the batch is another process's, zeros until that one tells."""
        if not own:
            return cls(*(torch.zeros(len(batch.targets_N), device=batch.ids_T.device) for _ in range(3)))
        policy, _ = roles.scores(batch, roles.trained, temperature=temperature, entropy=True)
        reference, reference_TH = roles.scores(batch, REFERENCE, temperature=temperature)
        assert policy.entropy_N is not None
        return cls(policy.log_probs_N, reference.log_probs_N, policy.entropy_N, reference_TH)


@dataclass
class MeasuredBatch:
    """One packed micro-batch of completions and what was measured of it before the update."""

    mini_batch: int
    """Which mini-batch of the update it belongs to."""
    indices: list[int]
    """Which completions of the step these are."""
    batch: PackedBatch
    log_probs_N: torch.Tensor
    """log p of the policy that sampled, from the training forward, nats."""
    reference_N: torch.Tensor
    """log p of the reference, nats."""
    entropy_N: torch.Tensor
    """Entropy of the policy at each token, nats."""
    stopped: tuple[bool, ...]
    """Which completions ended by themselves."""
    raw_DK: torch.Tensor
    """What each reward says of each whole completion."""
    score_D: torch.Tensor = field(default_factory=_to_come)
    """The score that the objective sees; filled in, as what follows, once all micro-batches are measured."""
    advantages_N: torch.Tensor = field(default_factory=_to_come)
    own: bool = field(default=True, kw_only=True)
    """Whether it is this process's to run. What stands in the others was measured by those whose they are."""

    def measurements(self) -> list[torch.Tensor]:
        """What one process has measured and all are told of."""
        return [self.log_probs_N, self.reference_N, self.entropy_N, self.raw_DK]


@dataclass(kw_only=True)
class RolloutBatch(MeasuredBatch):
    """What PPO measures, too."""

    states: ValueStates
    """The states that have a value."""
    features_SH: torch.Tensor
    """Hidden state that the value is read from before the update, fp32; none where the batch is another process's."""
    values_S: torch.Tensor
    """Value of each state before the update."""
    returns_S: torch.Tensor = field(default_factory=_to_come)
    """Filled in with the advantages."""

    def measurements(self) -> list[torch.Tensor]:
        return [*super().measurements(), self.values_S]


def sample_policy(
    roles: RoleModel,
    prompts: Sequence[PromptExample],
    *,
    max_new_tokens: int,
    temperature: float,
    stop_ids: frozenset[int],
    pad_id: int,
    seeds: Sequence[int],
) -> list[Completion]:
    """One completion a prompt from the current policy; a prompt's draw depends on its seed alone."""
    sampler = roles.sampler or EngineSampler(roles)
    return sampler.complete(
        [list(p.prompt) for p in prompts],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        stop_ids=stop_ids,
        pad_id=pad_id,
        seeds=list(seeds),
    )


@dataclass(frozen=True)
class EngineSampler:
    """The engine's own sampler, on the device that trains."""

    roles: RoleModel

    def complete(self, prompts: Sequence[Sequence[int]], **settings: Any) -> list[Completion]:
        """As `Sampler` says."""
        with self.roles.speaking(POLICY) as model:
            return sample(model, prompts, **settings)


def rollout_seeds(seed: int, step: int, count: int) -> list[int]:
    """A seed for each rollout of a step: a pure function of (seed, step, place)."""
    return [seed_of(seed, "rollout", step, i) for i in range(count)]


def measure(
    roles: RoleModel,
    value: ValueFunction,
    rewards: Rewards,
    prompts: Sequence[PromptExample],
    completions: Sequence[Completion],
    told_DK: torch.Tensor,
    *,
    mini_batches: int,
    temperature: float,
    post_eos: bool,
    budget: int,
    device: torch.device,
    check: Callable[[], None],
) -> list[RolloutBatch]:
    """Measure every completion under policy, reference, value function and reward models, without gradient.

    `told_DK` is what judges of texts have said of the completions. Rollout i belongs to mini-batch i mod
    `mini_batches`; each mini-batch is packed on its own. With `post_eos` there is a state after the end-of-turn, too.
    Scores, advantages and returns are left empty. Processes that train together share out the micro-batches, and all of
    them hold what was measured. `check` may raise StopRequested.
    """
    documents = [
        Document.completion(prompt.prompt, completion.ids)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    divided = _mini_batches([len(d.ids) for d in documents], mini_batches, budget)
    measured = []
    for mini_batch, group, own in micro_batches_with_owner(divided, check):
        batch = pack([documents[i] for i in group], device)
        stopped = tuple(completions[i].stopped for i in group)
        states = value_states(batch, stopped, post_eos=post_eos)
        with torch.no_grad():
            tokens = TokenMeasurements.of(roles, batch, temperature=temperature, own=own)
            if own:
                raw_DK, judged_TH = rewards.of_batch(roles, batch, told_DK[group])
                frozen_TH = tokens.reference_TH if judged_TH is None else judged_TH
                features_SH = value.features(batch, states, frozen_TH=frozen_TH)
                values_S = value(features_SH)
            else:
                raw_DK, features_SH = rewards.unheard(batch), _to_come()
                values_S = torch.zeros(sum(states.lengths), device=device)
        measured.append(
            RolloutBatch(
                mini_batch, group, batch, tokens.log_probs_N, tokens.reference_N, tokens.entropy_N, stopped, raw_DK,
                states=states, features_SH=features_SH, values_S=values_S, own=own,
            )
        )  # fmt: skip
    tell_measurements([tensor for b in measured for tensor in b.measurements()])
    return measured


def _mini_batches(sizes: Sequence[int], mini_batches: int, budget: int) -> list[list[list[int]]]:
    """Rollout indices of every micro-batch of every mini-batch: a pure function of `sizes` and the processes."""
    divided = []
    for k in range(min(mini_batches, len(sizes))):
        members = list(range(k, len(sizes), mini_batches))
        groups = balanced_groups([sizes[i] for i in members], budget)
        divided.append([[members[i] for i in group] for group in groups])
    return divided


def mini_batch_order(batches: Sequence[MeasuredBatch], seed: int, step: int, epoch: int) -> list[int]:
    """The mini-batches of one pass over the completions: in order first, shuffled in later epochs."""
    count = max(b.mini_batch for b in batches) + 1
    if epoch == 0:
        return list(range(count))
    generator = torch.Generator().manual_seed(seed_of(seed, "minibatches", step, epoch))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def sampling_difference(batches: Sequence[MeasuredBatch], completions: Sequence[Completion]) -> dict[str, Metric]:
    """How far log-probs of the training forward lie from those that the tokens were sampled with, in nats."""
    total: torch.Tensor | float = 0.0
    for b in batches:
        sampled = [value for i in b.indices for value in completions[i].log_probs]
        total = total + (b.log_probs_N - on_device(sampled, b.log_probs_N.device, torch.float32)).abs().sum()
    return {"sampling/sampling_logp_difference/mean": (total, float(sum(len(c.ids) for c in completions)))}


def sample_rows(
    prompts: Sequence[PromptExample],
    completions: Sequence[Completion],
    batches: Sequence[MeasuredBatch],
    tokenizer: ChatTokenizer,
    rewards: Rewards,
    *,
    shown: Sequence[int] = range(8),
) -> list[dict[str, Any]]:
    """Some rollouts of a step as rows of samples.jsonl, with per-token log-ratios to the reference in nats."""
    place = {index: (b, d) for b in batches for d, index in enumerate(b.indices)}
    rows = []
    for i in [i for i in shown if i < len(prompts)]:
        b, d = place[i]
        logratio = (b.log_probs_N - b.reference_N)[b.batch.document_N == d]
        text = tokenizer.decode(completions[i].ids)
        rows.append(
            {
                "prompt_id": prompts[i].id,
                "prompt": prompts[i].text,
                "completion": text,
                "reward": float(b.score_D[d]),
                **({"scores": scores} if (scores := rewards.in_words(b.raw_DK[d])) else {}),
                "logratio": [round(x, 5) for x in logratio.tolist()],
                "ends": token_ends(tokenizer.decode, completions[i].ids, text),
                "length": len(completions[i].ids),
                "stopped": completions[i].stopped,
            }
        )
    return rows
