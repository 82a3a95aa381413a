"""Examples of answers that were judged one by one: from one frozen row to token ids, and their mismatched partners.

Owns the shape of these rows, and which other answer is read after each prompt to measure the baseline of KTO. The rule
of truncation is that of `examples.py`. Invariants: partners are a pure function of the seed and the examples, and an
answer is never its own partner. Torch-free; knows nothing of losses.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from engine.data.chat import ChatTokenizer
from engine.data.chat_messages import tools_of
from engine.data.example_store import Origin, StoredExamples
from engine.data.examples import PROMPT_TOO_LONG, PreferenceExample, group_of
from engine.data.reading import EMPTY, BrokenRow, Row, RowExamples, number_of, talk, words_of

PARTNERS_TRIED = 16


@dataclass(frozen=True)
class LabelledExample:
    """One answer to a prompt, and whether it is a desirable one."""

    id: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    desirable: bool
    weight: float
    """Of this answer in the loss; 1 unless the row says otherwise."""
    group: str
    """Hash of the prompt: examples of one group share it."""


def labelled_row(row: Row, name: str, tokenizer: ChatTokenizer, max_length: int) -> RowExamples[LabelledExample]:
    """A row {"prompt", "completion", "label"}, the label true or false, with "weight" and "group" where given.

    Raises BrokenRow where a field is missing and DataError where the template refuses the prompt.
    """
    prompt, completion, label = talk(row, "prompt"), talk(row, "completion"), row.get("label")
    if not isinstance(label, bool):
        raise BrokenRow(f'"label" is {label!r}: expected true for a desirable answer, false for an undesirable one')
    if not words_of(completion):
        return RowExamples.nothing(EMPTY)
    tools = tools_of(row.get("tools"))
    prompt_ids = tuple(tokenizer.prompt_ids(prompt, tools))
    room = max_length - len(prompt_ids)
    if room <= 0:
        return RowExamples.nothing(PROMPT_TOO_LONG)
    answer = tuple(tokenizer.completion_ids(prompt, completion, tools))
    weight = number_of(row, "weight", 1.0)
    assert weight is not None
    example = LabelledExample(name, prompt_ids, answer[:room], label, weight, group_of(row, prompt))
    return RowExamples((example,), truncated=int(len(answer) > room))


class MismatchedPairs(Sequence[PreferenceExample]):
    """Each example as a pair: its own answer as `chosen`, an answer to another prompt as `rejected`.

    The partner is the next example in a seeded shuffle of all of them whose prompt differs (the next of all where the
    few tried do not), so its reference log-prob is the same in every epoch. Its answer is cut where the two together
    are longer than `max_length`. Needs at least two examples.
    """

    def __init__(self, examples: Sequence[LabelledExample], *, seed: int, max_length: int) -> None:
        """Nothing is built before it is asked for: examples may lie on the disk."""
        assert len(examples) > 1, "an answer is never its own partner"
        self._examples = examples
        self._seed = seed
        self._max_length = max_length
        self._shuffled = list(range(len(examples)))
        random.Random(seed).shuffle(self._shuffled)
        self._place = [0] * len(examples)
        for place, index in enumerate(self._shuffled):
            self._place[index] = place

    def __len__(self) -> int:
        return len(self._examples)

    def partner(self, index: int) -> int:
        """Which example's answer stands beside that of example `index`."""
        group, place, count = self._examples[index].group, self._place[index], len(self)
        following = [self._shuffled[(place + k) % count] for k in range(1, min(PARTNERS_TRIED + 1, count))]
        return next((one for one in following if self._examples[one].group != group), following[0])

    def take(self, indices: Sequence[int]) -> Sequence[PreferenceExample]:
        """The pairs at `indices`, in that order, as a view."""
        return _Taken(self, indices)

    def origin(self) -> Origin:
        """These pairs as a whole set. The examples lie in a store."""
        assert isinstance(self._examples, StoredExamples)
        of = self._examples.origin("prompt", "completion", "group")
        decided_by = repr((of.sha256, of.places, self._seed, self._max_length))
        return Origin(hashlib.sha256(decided_by.encode()).hexdigest(), len(self), range(len(self)))

    @overload
    def __getitem__(self, index: int) -> PreferenceExample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PreferenceExample]: ...
    def __getitem__(self, index: int | slice) -> PreferenceExample | Sequence[PreferenceExample]:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        own = self._examples[index]
        other = self._examples[self.partner(index)].completion[: self._max_length - len(own.prompt)]
        return PreferenceExample(own.id, own.prompt, own.completion, other, own.weight, None, own.group)


class _Taken(Sequence[PreferenceExample]):
    """Some pairs, each made when it is asked for."""

    def __init__(self, pairs: MismatchedPairs, indices: Sequence[int]) -> None:
        self._pairs = pairs
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> PreferenceExample: ...
    @overload
    def __getitem__(self, index: slice) -> _Taken: ...
    def __getitem__(self, index: int | slice) -> PreferenceExample | _Taken:
        if isinstance(index, slice):
            return _Taken(self._pairs, self._indices[index])
        return self._pairs[self._indices[index]]
