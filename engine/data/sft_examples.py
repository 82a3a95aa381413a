"""Examples of supervised fine-tuning: from one frozen row to sequences with the tokens that are trained.

Owns what `sft.train_on` means for each kind of row, and how a long text is cut. The truncation rule is that of
examples.py: the start is kept. Only texts that are trained whole (`train_on = "all"`) are cut into chunks instead;
each chunk begins with the last token of the one before, so that every token but the very first is predicted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.data.chat import ChatTokenizer
from engine.data.chat_messages import tools_of
from engine.data.conversation_masks import assistant_turns, masked_turns
from engine.data.reading import (
    EMPTY,
    ReadingCounts,
    Row,
    RowExamples,
    messages_of,
    read_all,
    talk,
    text_of,
    words_of,
)
from engine.data.tokens import Tokens
from engine.errors import DataError

TOO_LONG = "too long: no token of the answer is left after truncation"
CHUNKED = "text cut into chunks of max_length"


@dataclass(frozen=True)
class SftExample:
    """One sequence to be learnt."""

    id: str
    """Of its row; the examples of a row that was split share it."""
    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """Same length as `ids`: True where the token counts in the loss. At least one is True behind the first token."""


def sft_row(
    row: Row,
    name: str,
    tokenizer: ChatTokenizer,
    max_length: int,
    train_on: str = "completion",
    split: bool = False,
) -> RowExamples[SftExample]:
    """A row {"prompt", "completion"}, {"messages"}, {"text"}, or a preference (its chosen answer).

    What is trained, by `train_on`: "completion", the completion, every assistant turn of `messages`, all of a text;
    "assistant", every assistant turn, those inside a prompt too; "last", the last assistant turn alone; "all", every
    token. A plain-string prompt has no turns: its completion is trained, or all. `split` passes over training templates
    (see conversation_masks.py).

    Raises BrokenRow where a field is missing and DataError where the template refuses the conversation.
    """
    if "text" in row:
        text = text_of(row, "text")
        if not text.strip():
            return RowExamples.nothing(EMPTY)
        tokens = tokenizer.whole_text(text)
        if train_on == "all" and len(tokens.ids) > max_length:
            return _examples(name, _chunks(tokens, max_length), max_length, CHUNKED)
        return _examples(name, (tokens,), max_length)
    if "messages" in row:
        return _conversation(row, name, tokenizer, max_length, train_on, split)
    completion = talk(row, "completion" if "completion" in row else "chosen")
    prompt = talk(row, "prompt")
    if not words_of(completion):
        return RowExamples.nothing(EMPTY)
    if not isinstance(prompt, str) and not isinstance(completion, str):
        earlier = assistant_turns(prompt)
        if len(completion) > 1 or (earlier and train_on == "assistant"):
            whole = {**row, "messages": [*prompt, *completion]}
            first = 0 if train_on in ("assistant", "all") else len(prompt)
            return _conversation(whole, name, tokenizer, max_length, train_on, split, first)
    tools = tools_of(row.get("tools"))
    answer = tokenizer.completion_ids(prompt, completion, tools)
    tokens = Tokens.answered(tokenizer.prompt_ids(prompt, tools), answer)
    return _examples(name, (tokens.all_trained() if train_on == "all" else tokens,), max_length)


def read_sft(
    file: Path, tokenizer: ChatTokenizer, max_length: int, train_on: str = "completion"
) -> tuple[list[SftExample], ReadingCounts]:
    """Every `sft_row` of a file. Raises DataError, also where no row is usable."""
    read = partial(sft_row, tokenizer=tokenizer, max_length=max_length, train_on=train_on)
    return read_all(file, read, max_length)


def _conversation(
    row: Row, name: str, tokenizer: ChatTokenizer, max_length: int, train_on: str, split: bool, first: int = 0
) -> RowExamples[SftExample]:
    """A row's messages with their assistant turns from index `first` on trained, or the last, or every token."""
    messages = messages_of(row)
    turns = [turn for turn in assistant_turns(messages) if turn >= first]
    if not turns:
        raise DataError("a conversation without an assistant turn has nothing to train on")
    if train_on == "last":
        turns = turns[-1:]
    if not words_of([messages[turn] for turn in turns]):
        return RowExamples.nothing(EMPTY)
    if train_on == "all":
        return _examples(name, (tokenizer.whole_conversation(messages, tools_of(row.get("tools"))),), max_length)
    sequences, proof = masked_turns(tokenizer, messages, turns, tools_of(row.get("tools")), split=split)
    return _examples(name, sequences, max_length, proof)


def _examples(name: str, sequences: Sequence[Tokens], max_length: int, treatment: str = "") -> RowExamples[SftExample]:
    """The sequences by the truncation rule."""
    kept: list[SftExample] = []
    truncated = 0
    for tokens in sequences:
        ids, trained = tokens.ids[:max_length], tokens.trained[:max_length]
        # Nothing predicts the first token, so it teaches nothing.
        if any(trained[1:]):
            kept.append(SftExample(name, ids, trained))
            truncated += len(tokens.ids) > max_length
    lost = (TOO_LONG,) * (len(sequences) - len(kept))
    return RowExamples(tuple(kept), lost, truncated, treatment if kept else "")


def _chunks(tokens: Tokens, max_length: int) -> list[Tokens]:
    """`tokens` cut so that each piece has at most `max_length` tokens and each but the first repeats one."""
    starts = range(0, len(tokens.ids) - 1, max_length - 1)
    return [Tokens(tokens.ids[a : a + max_length], tokens.trained[a : a + max_length]) for a in starts]
