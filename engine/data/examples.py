"""Examples of preferences and prompts: from one frozen row to token ids, with the truncation rule and what it drops.

Owns the shapes of these rows (SFT's are in sft_examples.py, KTO's in labelled_examples.py) and the one rule of
truncation: a whole sequence keeps its start, no end-of-turn token is put back, and what has lost all that it was to
teach is dropped.

A `prompt` is a list of messages, or a plain string (no template is applied). A `completion`, `chosen` or `rejected` is
a list of assistant messages, or a string. A row of messages may have `tools`, which the template is given. Torch-free;
knows nothing of packing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson

from engine.data.chat import ChatTokenizer, Prompt
from engine.data.chat_messages import tools_of, words_of_message
from engine.data.reading import (
    EMPTY,
    ReadingCounts,
    Row,
    RowExamples,
    messages_of,
    number_of,
    read_all,
    talk,
    words_of,
)

PROMPT_TOO_LONG = "too long: the prompt leaves no room for an answer"
IDENTICAL = "chosen equals rejected"
IDENTICAL_TRUNCATED = "chosen equals rejected after truncation"
NO_PROMPT = "a text without a prompt"


@dataclass(frozen=True)
class PreferenceExample:
    """Two answers to one prompt, of which the first is the better."""

    id: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    weight: float
    """Of this pair in the loss; 1 unless the row says otherwise."""
    margin: float | None
    """By how much the chosen answer is better, in nats of Bradley-Terry log-odds; None where the row does not say."""
    group: str
    """Hash of the prompt: pairs of one group share it."""


@dataclass(frozen=True)
class PromptExample:
    """Something to be answered."""

    id: str
    prompt: tuple[int, ...]
    text: str
    """The prompt for people to read: the words of its only message, or one "role: words" line per message."""


def preference_row(row: Row, name: str, tokenizer: ChatTokenizer, max_length: int) -> RowExamples[PreferenceExample]:
    """A row {"prompt", "chosen", "rejected"} with "weight", "margin" and "group" where given.

    Raises BrokenRow where a field is missing and DataError where the template refuses the prompt.
    """
    prompt, chosen, rejected = (talk(row, key) for key in ("prompt", "chosen", "rejected"))
    if not words_of(chosen) or not words_of(rejected):
        return RowExamples.nothing(EMPTY)
    tools = tools_of(row.get("tools"))
    prompt_ids = tokenizer.prompt_ids(prompt, tools)
    room = max_length - len(prompt_ids)
    if room <= 0:
        return RowExamples.nothing(PROMPT_TOO_LONG)
    answers = [tuple(tokenizer.completion_ids(prompt, answer, tools)) for answer in (chosen, rejected)]
    if answers[0] == answers[1]:
        return RowExamples.nothing(IDENTICAL)
    kept = [answer[:room] for answer in answers]
    if kept[0] == kept[1]:
        return RowExamples.nothing(IDENTICAL_TRUNCATED)
    weight, margin = number_of(row, "weight", 1.0), number_of(row, "margin", None)
    assert weight is not None
    example = PreferenceExample(name, tuple(prompt_ids), kept[0], kept[1], weight, margin, group_of(row, prompt))
    return RowExamples((example,), truncated=int(kept != answers))


def group_of(row: Row, prompt: Prompt) -> str:
    """The group of a row: as it says, else a hash of its prompt."""
    return str(row.get("group") or hashlib.sha256(orjson.dumps(prompt)).hexdigest())


def read_preferences(
    file: Path, tokenizer: ChatTokenizer, max_length: int
) -> tuple[list[PreferenceExample], ReadingCounts]:
    """Every `preference_row` of a file. Raises DataError, also where no row is usable."""
    return read_all(file, partial(preference_row, tokenizer=tokenizer, max_length=max_length), max_length)


def prompt_row(row: Row, name: str, tokenizer: ChatTokenizer, max_length: int) -> RowExamples[PromptExample]:
    """The prompt of a row of any kind: "prompt", or the turns before the last assistant turn of "messages".

    A prompt of `max_length` tokens or more is dropped, and so is a text, which has no prompt.
    """
    prompt = _prompt_of(row)
    if prompt is None:
        return RowExamples.nothing(NO_PROMPT)
    ids = tuple(tokenizer.prompt_ids(prompt, tools_of(row.get("tools"))))
    if len(ids) >= max_length:
        return RowExamples.nothing(PROMPT_TOO_LONG)
    return RowExamples((PromptExample(name, ids, readable(prompt)),))


def read_prompts(
    file: Path, tokenizer: ChatTokenizer, max_length: int, required: bool = True
) -> tuple[list[PromptExample], ReadingCounts]:
    """Every `prompt_row` of a file. `required=False` gives an empty list where there is none; else a DataError."""
    read = partial(prompt_row, tokenizer=tokenizer, max_length=max_length)
    return read_all(file, read, max_length, required=required)


def readable(prompt: Prompt) -> str:
    """A prompt as people read it; text of strangers, so `safe` it before a terminal shows it."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return words_of_message(prompt[0])
    return "\n".join(f"{message['role']}: {words_of_message(message)}" for message in prompt)


def _prompt_of(row: Row) -> Prompt | None:
    if "prompt" in row:
        return talk(row, "prompt")
    if "messages" not in row:
        return None
    messages = messages_of(row)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return (messages[: answers[-1]] if answers else messages) or None
