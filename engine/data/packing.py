"""Packed batches: many documents in one row of tokens, without a padded slot.

Owns the layout that every forward pass of the engine uses. A batch stores, for each trained token, the row of the
hidden states that predicts it (one before the token, inside the same document), so the "shift by one" is done here
once and no loss ever derives a mask from token ids. The first token of a document is never a target.

Knows nothing of models, losses or files. Shapes: T tokens of the batch, N targets, D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Document:
    """One sequence of tokens and the tokens of it that count."""

    ids: Sequence[int]
    """All tokens, prompt first."""
    scored: Sequence[bool]
    """Same length as `ids`: True where the token's log-prob is wanted. Entry 0 is ignored: nothing predicts it."""

    @classmethod
    def completion(cls, prompt: Sequence[int], completion: Sequence[int]) -> Document:
        """A prompt that is not scored, followed by a completion that is."""
        return cls([*prompt, *completion], [False] * len(prompt) + [True] * len(completion))


@dataclass(frozen=True)
class PackedBatch:
    """D documents laid end to end."""

    ids_T: torch.Tensor
    """int64 token ids."""
    positions_T: torch.Tensor
    """int64 position of each token inside its own document."""
    lengths: tuple[int, ...]
    """Tokens of each document, in order; they add up to T."""
    rows_N: torch.Tensor
    """int64 index into T of the hidden state that predicts each target."""
    targets_N: torch.Tensor
    """int64 token id to be predicted."""
    document_N: torch.Tensor
    """int64 index of the document that each target belongs to, ascending."""
    last_rows_D: torch.Tensor
    """int64 index into T of each document's last token."""
    targets_per_document: tuple[int, ...]
    """Number of targets of each document."""

    @property
    def tokens(self) -> int:
        """Tokens that go through the model; no slot is padding."""
        return int(self.ids_T.shape[0])

    def sum_by_document(self, values_N: torch.Tensor) -> torch.Tensor:
        """Sum a per-target quantity over each document: shape (D,), in the dtype of `values_N`, deterministic."""
        out_D = values_N.new_zeros(len(self.lengths))
        return out_D.index_add(0, self.document_N, values_N)


def pack(documents: Sequence[Document], device: torch.device | str = "cpu") -> PackedBatch:
    """Lay `documents` end to end on `device`. Empty documents are a programming error."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    last: list[int] = []
    per_document: list[int] = []
    for index, document in enumerate(documents):
        assert len(document.ids) > 0, "an empty document cannot be packed"
        start = len(ids)
        ids.extend(document.ids)
        positions.extend(range(len(document.ids)))
        scored = [t for t in range(1, len(document.ids)) if document.scored[t]]
        rows.extend(start + t - 1 for t in scored)
        targets.extend(document.ids[t] for t in scored)
        owner.extend([index] * len(scored))
        per_document.append(len(scored))
        last.append(len(ids) - 1)

    def on_device(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=True)

    return PackedBatch(
        on_device(ids),
        on_device(positions),
        tuple(len(document.ids) for document in documents),
        on_device(rows),
        on_device(targets),
        on_device(owner),
        on_device(last),
        tuple(per_document),
    )


def fill_by_token_budget(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Group item indices into micro-batches of at most `budget` tokens, longest first into the first that has room.

    An item larger than the budget gets a micro-batch of its own. The grouping is a pure function of `sizes`, so a
    resumed step packs as the first attempt did. Indices inside a group are ascending.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    groups: list[list[int]] = []
    room: list[int] = []
    for item in order:
        for g, free in enumerate(room):
            if sizes[item] <= free:
                groups[g].append(item)
                room[g] -= sizes[item]
                break
        else:
            groups.append([item])
            room.append(budget - sizes[item])
    return [sorted(group) for group in groups]
