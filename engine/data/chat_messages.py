"""Messages of a conversation as a chat template is given them, and the definitions of tools that go with them.

Owns their shape and the one form in which a template sees it, that of transformers: keys without a value are left out,
an assistant turn that only calls tools has the empty text as its content, a call stands under "function", and its
arguments are an object even where the row holds them as JSON text, because published templates write them as JSON once.
Knows nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import DataError

Message = Mapping[str, Any]
"""{"role": one of ROLES, "content": str}, and of an assistant "tool_calls" and "reasoning_content" where it has them;
further keys are handed to the template as they are."""
Tools = Sequence[Mapping[str, Any]]
"""Definitions of functions: JSON-schema objects as transformers and the OpenAI API take them."""

ROLES = ("system", "user", "assistant", "tool")
THINKING = "reasoning_content"


def check_messages(messages: Sequence[Message], where: str) -> None:
    """Raises DataError unless every message has one of ROLES and a text as its content, or calls tools."""
    if not messages:
        raise DataError(f"{where}: no messages: expected at least one {{role, content}}")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise DataError(f"{where}, message {number}: a {type(message).__name__}: expected {{role, content}}")
        if message.get("role") not in ROLES:
            raise DataError(f"{where}, message {number}: role {message.get('role')!r}: expected {', '.join(ROLES)}")
        if not has_content(message):
            found = type(message.get("content")).__name__
            raise DataError(f"{where}, message {number} ({message['role']}): content is a {found}: expected a text")


def has_content(message: Message) -> bool:
    """Whether a message has a text, or calls tools and needs none."""
    content = message.get("content")
    return isinstance(content, str) or (content is None and bool(message.get("tool_calls")))


def words_of_message(message: Message) -> str:
    """What a message says, as people read it: its text, and the functions that it calls with their arguments."""
    calls = [normal_call(call)["function"] for call in message.get("tool_calls") or []]
    said = [f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in calls]
    return "\n".join(part for part in (message.get("content") or "", *said) if part)


def for_template(messages: Sequence[Message], change: Callable[[str], str]) -> list[dict[str, Any]]:
    """The messages in the form that a template sees, with `change` applied to every text in them but the roles."""
    return [_message(message, change) for message in messages]


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with `change` applied to every text in it. Raises DataError where a key would be changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        if forged := next((key for key in value if change(str(key)) != str(key)), None):
            raise DataError(f"a name in a tool or message holds the text of a special token: {forged!r}: remove it")
        return {key: changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [changed(inner, change) for inner in value]
    return value


def tools_of(value: Any) -> Tools | None:
    """The "tools" of a row: a list of definitions, or JSON text of one; None where there is none. Raises DataError."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"tools is a text that is no JSON ({error}): expected a list of functions") from error
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError(f"tools is a {type(value).__name__}: expected a list of functions as JSON-schema objects")
    return value


def _message(message: Message, change: Callable[[str], str]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if value is not None and key != "role"}
    if calls := kept.pop("tool_calls", None):
        kept = {"content": "", **kept, "tool_calls": [normal_call(call) for call in calls]}
    return {"role": message["role"], **changed(kept, change)}


def normal_call(call: Any) -> dict[str, Any]:
    """One tool call in the form that templates see: {"id", "type", "function": {"name", "arguments"}}.

    A call without its shell and arguments as JSON text are put right. Raises DataError where it names no function.
    """
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError('a tool call without a name: expected {"function": {"name", "arguments"}}')
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _object_in(arguments)
    outer = {"type": "function"} if function is call else {k: v for k, v in call.items() if v is not None}
    return {**outer, "function": {"name": function["name"], "arguments": {} if arguments is None else arguments}}


def _object_in(text: str) -> Any:
    """The object that a text holds as JSON; the text itself where it holds none."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text
