"""Packed batches: many documents in one row of tokens, without a padded slot.

Owns the layout that every forward pass of the engine uses. A batch stores, for each trained token, the row of the
hidden states that predicts it (one before the token, inside the same document), so the "shift by one" is done here
once and no loss ever derives a mask from token ids. The first token of a document is never a target.

Documents that begin alike may share that beginning: a document can follow the first tokens of another, its trunk, in
place of holding them again. It is still a document of its own to everything that reads the batch; only its first
tokens go through the model once for both.

Knows nothing of models, losses or files. Shapes: T tokens of the batch, N targets, D documents.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch

from engine.data.host_copies import on_device, queued


@dataclass(frozen=True)
class Document:
    """One sequence of tokens and the tokens of it that count."""

    ids: Sequence[int]
    """All tokens, prompt first."""
    scored: Sequence[bool]
    """Same length as `ids`: True where the token's log-prob is wanted. Entry 0 is ignored: nothing predicts it."""
    shared: int = 0
    """So many tokens of its beginning are those of the nearest document before it that shares nothing, its trunk."""

    @classmethod
    def completion(cls, prompt: Sequence[int], completion: Sequence[int], *, shared: int = 0) -> Document:
        """A prompt that is not scored, followed by a completion that is."""
        return cls([*prompt, *completion], [False] * len(prompt) + [True] * len(completion), shared)


@dataclass(frozen=True)
class Span:
    """The rows that one document has to itself, and what stands before them."""

    start: int
    """First of its rows."""
    length: int
    """Its rows: its tokens without those it shares."""
    trunk: int
    """Index of the document whose first tokens stand before its own; its own index where it shares none."""
    shared: int
    """So many of the trunk's rows stand before its own."""


@dataclass(frozen=True)
class PackedBatch:
    """D documents laid end to end, those of equal length beside each other."""

    ids_T: torch.Tensor
    """int64 token ids."""
    positions_T: torch.Tensor
    """int64 position of each token inside its own document."""
    spans: tuple[Span, ...]
    """Where each document lies, in the order in which they were given; their lengths add up to T."""
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

    def apart(self) -> tuple[PackedBatch, torch.Tensor]:
        """The same documents with nothing shared, and for each row of this batch the row there that stands for it.

        Only what a forward pass reads is right for the rows of the new batch: ids, positions and spans.
        """
        device = self.ids_T.device
        lengths = [span.shared + span.length for span in self.spans]
        spans = _laid_out([(length, 0) for length in lengths], list(range(len(lengths))))
        from_U = torch.empty(sum(lengths), dtype=torch.int64)
        back_T = torch.empty(self.tokens, dtype=torch.int64)
        for old, new in zip(self.spans, spans, strict=True):
            own, trunk = torch.arange(old.start, old.start + old.length), self.spans[old.trunk].start
            from_U[new.start : new.start + new.length] = torch.cat([torch.arange(trunk, trunk + old.shared), own])
            back_T[own] = torch.arange(new.start + old.shared, new.start + new.length)
        from_U = queued(from_U, device)
        apart = replace(self, ids_T=self.ids_T[from_U], positions_T=self.positions_T[from_U], spans=spans)
        return apart, queued(back_T, device)

    def sum_by_document(self, values_N: torch.Tensor) -> torch.Tensor:
        """Sum a per-target quantity over each document: shape (D,), in the dtype of `values_N`, deterministic."""
        out_D = values_N.new_zeros(len(self.spans))
        return out_D.index_add(0, self.document_N, values_N)


def pack(documents: Sequence[Document], device: torch.device | str = "cpu") -> PackedBatch:
    """Lay `documents` end to end on `device`. Documents without a token of their own are a programming error."""
    spans = _spans(documents)
    total = sum(span.length for span in spans)
    ids, positions = [0] * total, [0] * total
    rows: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, (document, span) in enumerate(zip(documents, spans, strict=True)):
        own = slice(span.start, span.start + span.length)
        ids[own] = document.ids[span.shared :]
        positions[own] = range(span.shared, span.shared + span.length)
        # The row of token t is `offset + t`; before the span's own tokens stand those of its trunk.
        offset, trunk_start = span.start - span.shared, spans[span.trunk].start
        scored = [t for t in range(1, len(document.ids)) if document.scored[t]]
        rows.extend(offset + t - 1 if t > span.shared else trunk_start + t - 1 for t in scored)
        targets.extend(document.ids[t] for t in scored)
        owner.extend([index] * len(scored))

    columns = [ids, positions, rows, targets, owner, [span.start + span.length - 1 for span in spans]]
    # One copy to the device for all of them.
    together = on_device(list(chain.from_iterable(columns)), device, torch.int64)
    ids_T, positions_T, rows_N, targets_N, document_N, last_rows_D = together.split([len(column) for column in columns])
    return PackedBatch(
        ids_T,
        positions_T,
        spans,
        rows_N,
        targets_N,
        document_N,
        last_rows_D,
        tuple(sum(map(bool, document.scored[1:])) for document in documents),
    )


def _spans(documents: Sequence[Document]) -> tuple[Span, ...]:
    """Where each document lies."""
    shapes: list[tuple[int, int]] = []
    trunks: list[int] = []
    for index, document in enumerate(documents):
        own = len(document.ids) - document.shared
        assert own > 0, "a document without a token of its own cannot be packed"
        assert index > 0 or document.shared == 0, "the first document has nothing before it to share"
        trunk = trunks[-1] if document.shared else index
        same = documents[trunk].ids[: document.shared]
        assert list(same) == list(document.ids[: document.shared]), "a document does not begin as its trunk does"
        shapes.append((own, document.shared))
        trunks.append(trunk)
    return _laid_out(shapes, trunks)


def _laid_out(shapes: Sequence[tuple[int, int]], trunks: Sequence[int]) -> tuple[Span, ...]:
    """Spans of documents with these (own length, shared length), equal ones beside each other."""
    starts = [0] * len(shapes)
    start = 0
    for index in sorted(range(len(shapes)), key=lambda i: (shapes[i], i)):
        starts[index] = start
        start += shapes[index][0]
    return tuple(Span(starts[i], own, trunks[i], shared) for i, (own, shared) in enumerate(shapes))


def fill_by_token_budget(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Group item indices into micro-batches of at most `budget` tokens, longest first into the first that has room.

    An item larger than the budget gets a micro-batch of its own. The grouping is a pure function of `sizes`, so a
    resumed step packs as the first attempt did. Indices inside a group are ascending.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    # Sizes only fall, so a group that has room for one item has room for the next, unless that item went into it.
    with_room: list[int] = []  # heap: the first group is taken
    too_full: list[tuple[int, int]] = []  # heap of (-room, group): those with the most room may come back
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[item]
        while too_full and -too_full[0][0] >= size:
            heapq.heappush(with_room, heapq.heappop(too_full)[1])
        if with_room:
            group = with_room[0]
            groups[group].append(item)
            room[group] -= size
            if room[group] >= size:
                continue
            heapq.heappop(with_room)
        else:
            group = len(groups)
            groups.append([item])
            room.append(budget - size)
        heapq.heappush(too_full, (-room[group], group))
    return [sorted(group) for group in groups]
