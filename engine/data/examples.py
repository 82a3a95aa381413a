"""Training examples: from frozen JSON lines to token ids, with the truncation rule and what it drops.

Owns the shapes of the rows that a run reads (see `read_sft`, `read_preferences`, `read_prompts`) and the one rule of
truncation: a whole sequence keeps its start, no end-of-turn token is put back, and what has lost all that it was to
teach is dropped. Every dropped row is counted under its reason; nothing is dropped silently.

A `prompt` is a list of messages, or a plain string (no template is applied). A `completion`, `chosen` or `rejected` is
a list of assistant messages, or a string. Torch-free; knows nothing of packing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from engine.data.chat import ChatTokenizer, Prompt, Tokens
from engine.data.chat_template import Message
from engine.errors import DataError

Dropped = Counter[str]
"""How many rows were dropped, by reason."""

TOO_LONG = "too long: no token of the answer is left after truncation"
PROMPT_TOO_LONG = "too long: the prompt leaves no room for an answer"
EMPTY = "empty completion"
IDENTICAL = "chosen equals rejected"
IDENTICAL_TRUNCATED = "chosen equals rejected after truncation"
NO_PROMPT = "a text without a prompt"
REFUSED = "refused by the chat template"


@dataclass(frozen=True)
class SftExample:
    """One sequence to be learnt."""

    id: str
    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """Same length as `ids`: True where the token counts in the loss. At least one is True behind the first token."""


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


def read_sft(
    file: Path, tokenizer: ChatTokenizer, max_length: int, train_on: str = "completion"
) -> tuple[list[SftExample], Dropped]:
    """Rows {"prompt", "completion"}, {"messages"} (all assistant turns train), {"text"}, or preferences (their chosen).

    `train_on` is "completion" or "all" (every token of every row). Raises DataError, also where no row is usable.
    """

    def read(row: dict[str, Any], name: str) -> SftExample | str:
        tokens = _sft_tokens(row, tokenizer)
        if isinstance(tokens, str):
            return tokens
        ids, trained = tokens.ids[:max_length], tokens.trained[:max_length]
        if train_on == "all":
            trained = (True,) * len(ids)
        # Nothing predicts the first token, so it teaches nothing.
        return SftExample(name, ids, trained) if any(trained[1:]) else TOO_LONG

    return _read(file, read, max_length)


def read_preferences(file: Path, tokenizer: ChatTokenizer, max_length: int) -> tuple[list[PreferenceExample], Dropped]:
    """Rows {"prompt", "chosen", "rejected"} with "weight", "margin" and "group" where given. Raises DataError."""

    def read(row: dict[str, Any], name: str) -> PreferenceExample | str:
        prompt, chosen, rejected = (_field(row, key) for key in ("prompt", "chosen", "rejected"))
        if not _words(chosen) or not _words(rejected):
            return EMPTY
        prompt_ids = tokenizer.prompt_ids(prompt)
        room = max_length - len(prompt_ids)
        if room <= 0:
            return PROMPT_TOO_LONG
        answers = [tuple(tokenizer.completion_ids(prompt, answer)) for answer in (chosen, rejected)]
        if answers[0] == answers[1]:
            return IDENTICAL
        kept = [answer[:room] for answer in answers]
        if kept[0] == kept[1]:
            return IDENTICAL_TRUNCATED
        weight, margin = _number(row, "weight", 1.0), _number(row, "margin", None)
        group = str(row.get("group") or hashlib.sha256(orjson.dumps(prompt)).hexdigest())
        assert weight is not None
        return PreferenceExample(name, tuple(prompt_ids), kept[0], kept[1], weight, margin, group)

    return _read(file, read, max_length)


def read_prompts(
    file: Path, tokenizer: ChatTokenizer, max_length: int, required: bool = True
) -> tuple[list[PromptExample], Dropped]:
    """The prompts of rows of any kind: "prompt", or the turns before the last assistant turn of "messages".

    A prompt of `max_length` tokens or more is dropped, and so is a text, which has no prompt. `required=False` gives an
    empty list where no row has a usable prompt; otherwise that is a DataError.
    """

    def read(row: dict[str, Any], name: str) -> PromptExample | str:
        prompt = _prompt_of(row)
        if prompt is None:
            return NO_PROMPT
        ids = tuple(tokenizer.prompt_ids(prompt))
        return PromptExample(name, ids, readable(prompt)) if len(ids) < max_length else PROMPT_TOO_LONG

    return _read(file, read, max_length, required=required)


def readable(prompt: Prompt) -> str:
    """A prompt as people read it; text of strangers, so `safe` it before a terminal shows it."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


Example = TypeVar("Example", SftExample, PreferenceExample, PromptExample)


def _read(
    file: Path,
    read: Callable[[dict[str, Any], str], Example | str],
    max_length: int,
    *,
    required: bool = True,
) -> tuple[list[Example], Dropped]:
    """Every row through `read`, which gives an example or the reason why there is none."""
    examples: list[Example] = []
    dropped: Dropped = Counter()
    first_refusal = ""
    for line, row in _rows(file):
        try:
            result = read(row, str(row.get("id", line)))
        except _BrokenRow as error:
            raise DataError(f"{file}, line {line}: {error}") from error
        except DataError as error:
            first_refusal = first_refusal or f"; the first at line {line}: {error}"
            result = REFUSED
        if isinstance(result, str):
            dropped[result] += 1
        else:
            examples.append(result)
    if required and not examples:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common()) or "the file is empty"
        hint = f"; data.max_length is {max_length}" if any(r.startswith("too long") for r in dropped) else ""
        raise DataError(f"{file}: 0 usable rows ({reasons}{hint}{first_refusal})")
    return examples, dropped


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a JSON-lines file. Raises DataError naming the line."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise DataError(
                        f"{file}, line {number}: not JSON ({error}): these examples are frozen and must not be edited; "
                        "make the set again"
                    ) from error
                if not isinstance(row, dict):
                    found = type(row).__name__
                    raise DataError(f"{file}, line {number}: a {found}: expected an object of named fields")
                yield number, row
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}): check that the file is there") from error


class _BrokenRow(Exception):
    """A row without the fields that its kind has: the file is of another kind, so reading stops."""


def _sft_tokens(row: dict[str, Any], tokenizer: ChatTokenizer) -> Tokens | str:
    if "text" in row:
        return tokenizer.whole_text(_text(row, "text")) if _text(row, "text").strip() else EMPTY
    if "messages" in row:
        messages = _messages(row)
        spoken = [m["content"] for m in messages if m["role"] == "assistant"]
        return tokenizer.conversation(messages) if not spoken or "".join(spoken).strip() else EMPTY
    completion = _field(row, "completion" if "completion" in row else "chosen")
    if not _words(completion):
        return EMPTY
    prompt = _field(row, "prompt")
    prompt_ids = tokenizer.prompt_ids(prompt)
    answer_ids = tokenizer.completion_ids(prompt, completion)
    return Tokens((*prompt_ids, *answer_ids), (False,) * len(prompt_ids) + (True,) * len(answer_ids))


def _prompt_of(row: dict[str, Any]) -> Prompt | None:
    if "prompt" in row:
        return _field(row, "prompt")
    if "messages" not in row:
        return None
    messages = _messages(row)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return (messages[: answers[-1]] if answers else messages) or None


def _messages(row: dict[str, Any]) -> Sequence[Message]:
    messages = _field(row, "messages")
    if isinstance(messages, str):
        raise _BrokenRow('"messages" is a text: expected a list of {role, content}')
    return messages


def _field(row: dict[str, Any], key: str) -> Prompt:
    """A field that holds messages or a text."""
    if key not in row:
        raise _BrokenRow(f'no "{key}": the fields are {", ".join(row) or "none"}')
    value = row[key]
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _BrokenRow(f'"{key}" is a {type(value).__name__}: expected a text or a list of {{role, content}}')
    for message in value:
        if not (isinstance(message, dict) and isinstance(message.get("content"), str) and "role" in message):
            raise _BrokenRow(f'"{key}" holds something that is not {{role, content}} with a text as its content')
    return value


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(row[key], str):
        raise _BrokenRow(f'"{key}" is a {type(row[key]).__name__}: expected a text')
    text: str = row[key]
    return text


def _number(row: dict[str, Any], key: str, default: float | None) -> float | None:
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BrokenRow(f'"{key}" is {value!r}: expected a number')
    return float(value)


def _words(answer: Prompt) -> str:
    """What an answer says, without the white space around it."""
    return (answer if isinstance(answer, str) else "".join(message["content"] for message in answer)).strip()
