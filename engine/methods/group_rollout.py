"""Groups of completions of the same prompt, measured before an update, and cut into micro-batches.

Log-probs come from the training forward over the very micro-batches that are trained on, so the first ratio is exactly
1. What a group shares, its prompt, goes through the model once for all its completions in a micro-batch. Completion i
of a step answers prompt i // G. Shapes: N completion tokens of a micro-batch, D completions, K rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress

import torch

from engine.data.examples import PromptExample
from engine.data.host_copies import on_device, queued
from engine.data.packing import Document, fill_by_token_budget, pack
from engine.methods.rewards import Rewards
from engine.methods.rollout import MeasuredBatch, TokenMeasurements
from engine.methods.shared_rollouts import micro_batches_with_owner, tell_measurements
from engine.model.adapters import RoleModel
from engine.model.sampler import Completion
from engine.ranks import balanced_groups, sum_over_ranks, world_size


@dataclass
class GroupBatch(MeasuredBatch):
    """A micro-batch of groups; `indices` ascend."""

    counted: list[bool] = field(default_factory=list)
    """Which completions take part in the loss; filled in with the advantages."""

    @property
    def places_D(self) -> torch.Tensor:
        """`indices` as int64."""
        return on_device(self.indices, self.log_probs_N.device, torch.int64)

    @property
    def tokens_D(self) -> torch.Tensor:
        """Tokens of each completion, fp32."""
        return on_device(self.batch.targets_per_document, self.log_probs_N.device, torch.float32)

    @property
    def counted_N(self) -> torch.Tensor:
        """1 for tokens that take part in the loss, else 0, fp32."""
        counted_D = on_device(self.counted, self.log_probs_N.device, torch.float32)
        return counted_D.index_select(0, self.batch.document_N)

    @property
    def counted_lengths(self) -> list[int]:
        """Tokens of each completion that takes part in the loss."""
        return list(compress(self.batch.targets_per_document, self.counted))


def measure_groups(
    roles: RoleModel,
    rewards: Rewards,
    prompts: Sequence[PromptExample],
    completions: Sequence[Completion],
    told_DK: torch.Tensor,
    *,
    mini_batches: int,
    temperature: float,
    budget: int,
    device: torch.device,
    check: Callable[[], None],
) -> list[GroupBatch]:
    """Every completion under policy, reference and reward models, without gradient.

    `completions` holds the groups of `prompts` one after the other, of equal size. Group g belongs to mini-batch g mod
    `mini_batches`; each mini-batch is packed on its own. `told_DK` is what judges of texts have said of completions.
    Processes that train together share out the micro-batches, and all of them hold what was measured. `check` may raise
    StopRequested.
    """
    measured = []
    divided = _mini_batches(prompts, completions, mini_batches, budget)
    for mini_batch, indices, own in micro_batches_with_owner(divided, check):
        batch = pack(documents_of(prompts, completions, indices), device)
        with torch.no_grad():
            tokens = TokenMeasurements.of(roles, batch, temperature=temperature, own=own)
            raw_DK = rewards.of_batch(roles, batch, told_DK[indices])[0] if own else rewards.unheard(batch)
        stopped = tuple(completions[i].stopped for i in indices)
        measured.append(
            GroupBatch(
                mini_batch, indices, batch, tokens.log_probs_N, tokens.reference_N, tokens.entropy_N, stopped, raw_DK,
                own=own,
            )
        )  # fmt: skip
    tell_measurements([tensor for b in measured for tensor in b.measurements()])
    return measured


def judge_completions(
    roles: RoleModel,
    rewards: Rewards,
    prompts: Sequence[PromptExample],
    completions: Sequence[Completion],
    told_DK: torch.Tensor,
    *,
    budget: int,
    device: torch.device,
    check: Callable[[], None],
) -> torch.Tensor:
    """What the rewards alone say of each completion, in their order, (D, K); arguments as in `measure_groups`."""
    if not rewards.has_base_judge:
        return queued(told_DK.clone(), device)
    raw_DK = torch.zeros(told_DK.shape, device=device)
    for _, indices, own in micro_batches_with_owner(_mini_batches(prompts, completions, 1, budget), check):
        if own:
            batch = pack(documents_of(prompts, completions, indices), device)
            judged_DK, _ = rewards.of_batch(roles, batch, told_DK[indices])
            raw_DK.index_copy_(0, on_device(indices, device, torch.int64), judged_DK)
    return sum_over_ranks(raw_DK)


def documents_of(
    prompts: Sequence[PromptExample], completions: Sequence[Completion], indices: Sequence[int]
) -> list[Document]:
    """Completions as documents; of each group the first holds the prompt and the others share it."""
    generations = len(completions) // len(prompts)
    documents, before = [], -1
    for i in indices:
        prompt = prompts[i // generations].prompt
        shared = len(prompt) if i // generations == before else 0
        documents.append(Document.completion(prompt, completions[i].ids, shared=shared))
        before = i // generations
    return documents


def _mini_batches(
    prompts: Sequence[PromptExample], completions: Sequence[Completion], mini_batches: int, budget: int
) -> list[list[list[int]]]:
    """The completions of every micro-batch of every mini-batch. A group is divided only where it alone is over the
    budget, or where some of the processes that train together would have nothing to do."""
    generations = len(completions) // len(prompts)
    divided = []
    for k in range(min(mini_batches, len(prompts))):
        members = range(k, len(prompts), mini_batches)
        divide = fill_by_token_budget if len(members) >= world_size() else balanced_groups
        parts: list[list[int]] = []
        sizes: list[int] = []
        for g in members:
            group = range(g * generations, (g + 1) * generations)
            room = max(1, budget - len(prompts[g].prompt))
            for part in divide([len(completions[i].ids) for i in group], room):
                parts.append([group[i] for i in part])
                sizes.append(len(prompts[g].prompt) + sum(len(completions[group[i]].ids) for i in part))
        filled = balanced_groups(sizes, budget)
        divided.append([sorted(i for part in parts_of_it for i in parts[part]) for parts_of_it in filled])
    return divided
