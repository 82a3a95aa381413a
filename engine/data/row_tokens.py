"""One row as a model is trained on it: every token with its text, whether it is trained, and where it would be cut.

Owns the texts of single tokens. Ids and masks are those of training itself (`sft_examples`, `examples`), asked without
a limit of length, so that what the limit takes away is shown too. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from engine.data.chat import ChatTokenizer
from engine.data.examples import preference_row, prompt_row
from engine.data.reading import Row
from engine.data.sft_examples import sft_row

UNBOUNDED = 1 << 40
MOST_TOKENS = 20_000
"""Of a sequence that are shown."""
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True)
class ShownToken:
    """One token."""

    id: int
    text: str
    """What it adds to the text; empty where it is a part of a character that a later token completes."""
    trained: bool
    special: bool
    """A token of its own that no ordinary text becomes, such as the end of a turn."""


@dataclass(frozen=True)
class ShownSequence:
    """What stands in one sequence of a batch."""

    name: str
    """chosen, rejected, prompt; empty where a row is one sequence."""
    tokens: tuple[ShownToken, ...]
    """The first MOST_TOKENS of them."""
    total: int
    trained: int
    cut_at: int
    """Tokens from here on are cut by the limit; `total` where none is."""
    trained_cut: int
    """Trained tokens among those that are cut."""


@dataclass(frozen=True)
class RowTokens:
    """A row in tokens."""

    sequences: tuple[ShownSequence, ...]
    dropped: tuple[str, ...]
    """Why the row, or a sequence of it, would not be trained on under the limit."""
    treatment: str
    """How it was made into sequences, where there was a choice."""


def row_tokens(row: Row, tokenizer: ChatTokenizer, max_length: int, train_on: str = "completion") -> RowTokens:
    """A canonical row in tokens: both answers of a pair, the conversation, the text, or the prompt alone.

    `train_on` is `sft.train_on`. Raises BrokenRow and DataError where training would.
    """
    if "chosen" in row or "a" in row:
        answers = ("chosen", "rejected") if "chosen" in row else ("a", "b")
        pair = {**row, "chosen": row[answers[0]], "rejected": row[answers[1]]}
        whole, limited = (preference_row(pair, "", tokenizer, length) for length in (UNBOUNDED, max_length))
        found = [
            (name, (*one.prompt, *ids), (False,) * len(one.prompt) + (True,) * len(ids))
            for one in whole.examples
            for name, ids in zip(answers, (one.chosen, one.rejected), strict=True)
        ]
        return _shown(found, tokenizer, max_length, limited.dropped or whole.dropped, "")
    if not {"completion", "messages", "text"} & row.keys():
        prompts, kept = (prompt_row(row, "", tokenizer, length) for length in (UNBOUNDED, max_length))
        listed = [("prompt", one.prompt, (False,) * len(one.prompt)) for one in prompts.examples]
        return _shown(listed, tokenizer, max_length, kept.dropped or prompts.dropped, "")
    # A limit that is not reached cuts no text into chunks; the treatment is told under the real one.
    all_of_it = sft_row(row, "", tokenizer, UNBOUNDED, train_on, split=True)
    under_limit = sft_row(row, "", tokenizer, max_length, train_on, split=True)
    sequences = [("", one.ids, one.trained) for one in all_of_it.examples]
    dropped = under_limit.dropped or all_of_it.dropped
    return _shown(sequences, tokenizer, max_length, dropped, under_limit.treatment or all_of_it.treatment)


def token_texts(ids: Sequence[int], tokenizer: ChatTokenizer) -> Iterator[str]:
    """What each token adds to the text. A character of several tokens belongs to the last of them."""
    begin = end = 0
    for place in range(len(ids)):
        before = tokenizer.decode(ids[begin:end], skip_special=False)
        whole = tokenizer.decode(ids[begin : place + 1], skip_special=False)
        if whole.endswith(_INCOMPLETE) and place + 1 - end < 8:
            yield ""
            continue
        yield whole[len(before) :]
        begin, end = end, place + 1


def _shown(
    found: Sequence[tuple[str, tuple[int, ...], tuple[bool, ...]]],
    tokenizer: ChatTokenizer,
    max_length: int,
    dropped: tuple[str, ...],
    treatment: str,
) -> RowTokens:
    return RowTokens(tuple(_sequence(*one, tokenizer, max_length) for one in found), dropped, treatment)


def _sequence(
    name: str, ids: tuple[int, ...], trained: tuple[bool, ...], tokenizer: ChatTokenizer, max_length: int
) -> ShownSequence:
    special: dict[int, bool] = {}
    tokens = []
    for token, text, counts in islice(zip(ids, token_texts(ids, tokenizer), trained, strict=True), MOST_TOKENS):
        if token not in special:
            special[token] = not tokenizer.decode([token]) and bool(tokenizer.decode([token], skip_special=False))
        tokens.append(ShownToken(token, text, counts, special[token]))
    cut = min(max_length, len(ids))
    return ShownSequence(name, tuple(tokens), len(ids), sum(trained), cut, sum(trained[cut:]))
