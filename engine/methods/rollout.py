"""Rollouts: completions sampled from the current policy, with what the update needs to know of each token.

Log-probs of policy and reference, values and rewards come from the training forward over fixed packed micro-batches,
never from the sampler's cache: the first mini-batch of an update packs the same documents in the same way, so its
ratio is exactly 1. Shapes: N completion tokens of a micro-batch, D completions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from engine.data.examples import PromptExample
from engine.data.packing import Document, PackedBatch, fill_by_token_budget, pack
from engine.methods.method import seed_of
from engine.model.adapters import POLICY, REFERENCE, REWARD, RoleModel
from engine.model.heads import ScalarHead
from engine.model.sampler import Completion, sample


@dataclass
class RolloutBatch:
    """One packed micro-batch of completions and what was measured of it before the update."""

    mini_batch: int
    """Which mini-batch of the update it belongs to."""
    indices: list[int]
    """Which rollouts of the step these are."""
    batch: PackedBatch
    log_probs_N: torch.Tensor
    """log p of the policy that sampled, from the training forward, nats."""
    reference_N: torch.Tensor
    """log p of the reference, nats."""
    features_NH: torch.Tensor
    """The reward model's hidden state before each token, fp32: what the value head reads."""
    values_N: torch.Tensor
    """Value of the state before each token, before the update."""
    entropy_N: torch.Tensor
    """Entropy of the policy at each token, nats."""
    score_D: torch.Tensor
    """Reward model's score of each whole completion, after the missing-end penalty and clipping."""
    advantages_N: torch.Tensor
    """Filled in once all micro-batches are scored."""
    returns_N: torch.Tensor

    @property
    def last_N(self) -> torch.Tensor:
        """Index into N of each completion's last token."""
        ends = torch.tensor(self.batch.targets_per_document).cumsum(0) - 1
        return ends.to(self.log_probs_N.device)


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
    with roles.use(roles.trained if roles.trained == POLICY else POLICY) as model:
        return sample(
            model,
            [list(p.prompt) for p in prompts],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_ids=stop_ids,
            seeds=list(seeds),
            pad_id=pad_id,
        )


def rollout_seeds(seed: int, step: int, count: int) -> list[int]:
    """A seed for each rollout of a step: a pure function of (seed, step, place)."""
    return [seed_of(seed, "rollout", step, i) for i in range(count)]


def measure(
    roles: RoleModel,
    value_head: ScalarHead,
    reward_head: ScalarHead,
    prompts: Sequence[PromptExample],
    completions: Sequence[Completion],
    *,
    mini_batches: int,
    temperature: float,
    budget: int,
    device: torch.device,
    score_of: Callable[[torch.Tensor, Sequence[Completion]], torch.Tensor],
    check: Callable[[], None],
) -> list[RolloutBatch]:
    """Score every completion under policy, reference, value head and reward model, without gradient.

    Rollout i belongs to mini-batch i mod `mini_batches`; each mini-batch is packed on its own. `score_of` turns raw
    rewards (D,) into the scores that the objective sees. `check` may raise StopRequested.
    """
    documents = [
        Document.completion(prompt.prompt, completion.ids)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    measured = []
    for mini_batch, group in _micro_batches([len(d.ids) for d in documents], mini_batches, budget):
        check()
        batch = pack([documents[i] for i in group], device)
        with torch.no_grad():
            policy, _ = roles.scores(batch, roles.trained, temperature=temperature, entropy=True)
            reference, _ = roles.scores(batch, REFERENCE, temperature=temperature)
            judged_TH = roles.hidden(batch, REWARD).float()
            features_NH = judged_TH.index_select(0, batch.rows_N)
            values_N = value_head(features_NH)
            raw_D = reward_head(judged_TH.index_select(0, batch.last_rows_D))
        assert policy.entropy_N is not None
        empty = policy.log_probs_N.new_zeros(0)
        score_D = score_of(raw_D, [completions[i] for i in group])
        measured.append(
            RolloutBatch(
                mini_batch,
                group,
                batch,
                policy.log_probs_N,
                reference.log_probs_N,
                features_NH,
                values_N,
                policy.entropy_N,
                score_D,
                empty,
                empty,
            )
        )
    return measured


def _micro_batches(sizes: Sequence[int], mini_batches: int, budget: int) -> Iterator[tuple[int, list[int]]]:
    """(mini-batch, rollout indices) of every micro-batch."""
    for k in range(min(mini_batches, len(sizes))):
        members = list(range(k, len(sizes), mini_batches))
        for group in fill_by_token_budget([sizes[i] for i in members], budget):
            yield k, [members[i] for i in group]
