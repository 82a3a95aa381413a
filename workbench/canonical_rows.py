"""The canonical rows that every dataset is read as, and the parts they are made of.

Owns the row types, what a valid list of messages is, what makes two prompts the same prompt, and the reasons for which
a row is refused. Invariant: a canonical row holds valid Unicode, no empty answer and no empty prompt.
Refuses to know where a row came from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

import orjson

from engine.data.chat_messages import normal_call, tools_of, words_of_message
from engine.errors import DataError
from workbench.left_out import REPEATED, WITHOUT_PROMPT

Shape = Literal["text", "prompt-completion", "messages", "preference", "answers", "prompts", "labelled"]
SHAPES: tuple[Shape, ...] = ("text", "prompt-completion", "messages", "preference", "answers", "prompts", "labelled")
Role = Literal["system", "user", "assistant", "tool"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str
    """May be empty where the assistant calls tools, or where a tool says nothing."""
    tool_calls: NotRequired[list[dict[str, Any]]]
    """What an assistant's turn calls: {"function": {"name", "arguments"}}, with "id" and "type" where given."""
    reasoning_content: NotRequired[str]
    """What an assistant thought before it spoke."""
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


Prompt = list[Message] | str
"""Messages that end before the answer, or a plain string to which no chat template is applied."""
Completion = list[Message] | str
"""The assistant's turn (or turns), or a plain string."""
Tags = dict[str, str | int | float | bool]
"""Small values of columns that the shape does not use, kept so that results can be grouped by them."""


class TextRow(TypedDict):
    """The whole text trains."""

    id: str
    text: str
    tags: Tags


class PromptCompletionRow(TypedDict):
    """The completion trains."""

    id: str
    prompt: Prompt
    completion: Completion
    tags: Tags
    tools: NotRequired[list[dict[str, Any]]]
    """Definitions of the functions that may be called; of conversations, not of plain texts."""


class MessagesRow(TypedDict):
    """Every assistant turn trains."""

    id: str
    messages: list[Message]
    tags: Tags
    tools: NotRequired[list[dict[str, Any]]]


class PreferenceRow(TypedDict):
    """Two answers to one prompt, and which was preferred."""

    id: str
    prompt: Prompt
    chosen: Completion
    rejected: Completion
    weight: float
    margin: float | None
    group: str
    tags: Tags
    tools: NotRequired[list[dict[str, Any]]]


class AnswersRow(TypedDict):
    """Two answers to one prompt without a verdict."""

    id: str
    prompt: Prompt
    a: Completion
    b: Completion
    group: str
    tags: Tags


class LabelledRow(TypedDict):
    """One answer to a prompt, and whether it is a desirable one."""

    id: str
    prompt: Prompt
    completion: Completion
    label: bool
    tags: Tags
    tools: NotRequired[list[dict[str, Any]]]


class PromptRow(TypedDict):
    """A prompt, whose answer, if its row has one, is for judges alone."""

    id: str
    prompt: Prompt
    tags: Tags
    reference: NotRequired[str]
    """The words of the row's own answer: the completion, the preferred one of two, or a desirable one."""
    tools: NotRequired[list[dict[str, Any]]]


CanonicalRow = TextRow | PromptCompletionRow | MessagesRow | PreferenceRow | AnswersRow | LabelledRow | PromptRow


class RowRejected(Exception):
    """One row cannot be used.

    `reason` comes from a small fixed vocabulary, so that rows can be counted by it; what quotes the row is `detail`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


def as_text(value: Any, what: str) -> str:
    """`value` if it is text that says something; else RowRejected("missing …" | "… is not text" | "empty …")."""
    if value is None:
        raise RowRejected(f"missing {what}")
    if not isinstance(value, str):
        raise RowRejected(f"{what} is not text", f"it is {type_name(value)}")
    if not value.strip():
        raise RowRejected(f"empty {what}")
    return value


def as_messages(value: Any, what: str) -> list[Message]:
    """A list of turns (role/content or ShareGPT's from/value) in canonical form; a single turn is a list of one.

    Role names of other tools are translated; a content that is a list of text parts is joined. Tool calls, thinking
    (`reasoning_content`) and what names a tool's result are kept; other keys are dropped.
    """
    if isinstance(value, dict):
        value = [value]
    if value is None:
        raise RowRejected(f"missing {what}")
    if not isinstance(value, list):
        raise RowRejected(f"{what} is not a list of messages", f"it is {type_name(value)}")
    if not value:
        raise RowRejected(f"empty {what}")
    return [_as_message(turn, what) for turn in value]


def _as_message(turn: Any, what: str) -> Message:
    if not isinstance(turn, dict):
        raise RowRejected(f"{what} is not a list of messages", f"one of them is {type_name(turn)}")
    said_by = turn.get("role", turn.get("from"))
    role = _ROLES.get(said_by.strip().lower()) if isinstance(said_by, str) else None
    if role is None:
        raise RowRejected("unknown role", f"{said_by!r}"[:80])
    content = turn.get("content", turn.get("value"))
    if (
        str(said_by).strip().lower() == "function_call"
    ):  # ShareGPT as LLaMA-Factory writes it: the calls are JSON in the text
        turn, content = {**turn, "tool_calls": _calls_in(content)}, ""
    if isinstance(content, list):
        content = _join_text_parts(content)
    message: dict[str, Any] = {"role": role, "content": content or ""}
    message |= {key: turn[key] for key in _KEPT[role] if isinstance(turn.get(key), str) and turn[key].strip()}
    if role == "assistant" and turn.get("tool_calls"):
        message["tool_calls"] = _tool_calls(turn["tool_calls"])
    if not (role == "tool" and content == "") and "tool_calls" not in message:
        message["content"] = as_text(content, "turn" if role != "assistant" else "answer")
    elif not isinstance(message["content"], str):
        raise RowRejected("a turn holds something that is not text")
    return cast(Message, message)


def as_tools(value: Any) -> list[dict[str, Any]]:
    """Definitions of tools, a list or JSON text of one; RowRejected where they are none."""
    try:
        return [dict(tool) for tool in tools_of(value) or ()]
    except DataError as error:
        raise RowRejected("tools are not a list of functions", str(error)[:200]) from error


def said_in(message: Mapping[str, Any]) -> str:
    """All that a turn says, for comparing and showing: what was thought, the words, the calls."""
    thought = message.get("reasoning_content")
    words = words_of_message(message)
    return f"<think>\n{thought}\n</think>\n\n{words}" if thought else words


_KEPT: dict[Role, tuple[str, ...]] = {
    "system": (),
    "user": (),
    "assistant": ("reasoning_content",),
    "tool": ("name", "tool_call_id"),
}


def _tool_calls(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise RowRejected("tool calls are not a list", f"it is {type_name(value)}")
    try:
        return [normal_call(call) for call in value]
    except DataError as error:
        raise RowRejected("a tool call names no function", str(error)[:200]) from error


def _calls_in(text: Any) -> list[Any]:
    try:
        value = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict | list):
        raise RowRejected("a function_call turn is not JSON")
    return value if isinstance(value, list) else [value]


def _join_text_parts(parts: list[Any]) -> str:
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise RowRejected("a turn holds something that is not text")
    return "".join(str(text) for text in texts)


def user(content: str) -> Message:
    """A user turn."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": content}


def require_open_prompt(prompt: list[Message]) -> list[Message]:
    """Returns `prompt` if an assistant's answer can follow it; RowRejected where it ends with one."""
    if prompt[-1]["role"] == "assistant":
        raise RowRejected("the prompt ends with an assistant turn")
    if all(message["role"] == "system" for message in prompt):
        raise RowRejected("the prompt has no user turn")
    return prompt


def require_answer(completion: list[Message]) -> list[Message]:
    """Returns `completion` if it is an answer: it starts and ends with an assistant turn."""
    if completion[0]["role"] != "assistant" or completion[-1]["role"] != "assistant":
        raise RowRejected("the answer is not an assistant turn")
    return completion


def completion_for(prompt: Prompt, text: str) -> Completion:
    """An answer in the form of its prompt: a turn after turns, a string after a string."""
    return text if isinstance(prompt, str) else [assistant(text)]


def text_of(completion: Completion) -> str:
    """The words of a completion, for comparing, counting and showing; turns are separated by a blank line."""
    if isinstance(completion, str):
        return completion
    return "\n\n".join(map(said_in, completion))


def last_user_text(prompt: Prompt) -> str:
    """What the person asked last: the string itself, or the content of the last user turn."""
    if isinstance(prompt, str):
        return prompt
    return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")


def group_of(prompt: Prompt) -> str:
    """16 hex digits that are equal where two prompts ask the same thing; rows of one group are never split.

    A plain string and a single user turn of the same words are one prompt, and surrounding white space does not count.
    """
    if isinstance(prompt, list) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]
    key: Any = prompt.strip() if isinstance(prompt, str) else [[turn["role"], said_in(turn).strip()] for turn in prompt]
    return hashlib.sha256(orjson.dumps(key)).hexdigest()[:16]


def is_held_out(group: str, seed: int, eval_share: float) -> bool:
    """Whether all rows of this group are for measuring: a hash of seed and group below the share.

    A group keeps its side when other rows come or go, so nothing that was trained on is ever measured on later.
    """
    digest = hashlib.sha256(f"{seed}\x1f{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < eval_share * 2**64


def prompt_of(row: CanonicalRow) -> Prompt | None:
    """The prompt of a row of any shape; for messages, what stands before the last assistant turn; None for text."""
    fields: Mapping[str, Any] = row
    if "prompt" in fields:
        prompt: Prompt = fields["prompt"]
        return prompt
    if "messages" in fields:
        turns: list[Message] = fields["messages"]
        ends = [index for index, turn in enumerate(turns) if turn["role"] == "assistant" and index > 0]
        return turns[: ends[-1]] if ends else None
    return None


def prompts_of(rows: Iterable[CanonicalRow], left_out: Counter[str] | None = None) -> Iterable[PromptRow]:
    """The prompts of rows of any shape; each prompt once, in order of first appearance.

    `left_out` counts the rows that give none, by reason.
    """
    seen: set[str] = set()
    left_out = Counter() if left_out is None else left_out
    for row in rows:
        prompt = prompt_of(row)
        if prompt is None:
            left_out[WITHOUT_PROMPT] += 1
            continue
        group = group_of(prompt)
        if group in seen:
            left_out[REPEATED] += 1
        else:
            seen.add(group)
            found: PromptRow = {"id": row["id"], "prompt": prompt, "tags": row["tags"]}
            if tools := cast(Mapping[str, Any], row).get("tools"):
                found["tools"] = tools
            if reference := _reference_of(cast(Mapping[str, Any], row), prompt):
                found["reference"] = reference
            yield found


def _reference_of(row: Mapping[str, Any], prompt: Prompt) -> str:
    """The words of a row's own answer; empty where it has none, or one that was judged undesirable."""
    if row.get("label") is False:
        return ""
    if "messages" in row:
        return text_of(row["messages"][len(prompt) :])
    return text_of(row.get("completion") or row.get("chosen") or "")


def to_json(value: Any) -> str:
    """A prompt or completion as it is stored in a column of text."""
    return orjson.dumps(value).decode("utf-8")


def from_json(text: str) -> Any:
    """The inverse of `to_json`."""
    return orjson.loads(text)


def type_name(value: Any) -> str:
    """What a raw value is, in the words of a person: "text", "a number", "a list of text" …"""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        if not value:
            return "an empty list"
        inside = {type_name(item).removeprefix("an ").removeprefix("a ") for item in value[:20]}
        return f"a list of {inside.pop()}" if len(inside) == 1 else "a mixed list"
    return type(value).__name__
