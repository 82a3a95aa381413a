"""Chat templates to train a family with, where the published one writes earlier turns differently once more follow.

Each `FAMILY.jinja` is our own writing. Owns how one is chosen: never by a name, but by what it writes. A training
template stands for a model's own only where both write every probe to the byte: single questions with system turns,
tools, calls, results and thinking, up to the answer and with it, which are what the published template is stable for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from engine.errors import DataError

Render = Callable[[list[dict[str, Any]], bool, Any], str]
"""(messages, add_generation_prompt, tools) -> text; raises DataError."""

_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "tells <the> weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "a name"}}},
    },
}
_SYSTEM = {"role": "system", "content": "Be brief."}
_ASK = {"role": "user", "content": " What is the sea?\n"}
_PLAIN = {"role": "assistant", "content": "Water. "}
_THOUGHT = {"role": "assistant", "content": "\n\nWater.", "reasoning_content": "\nIt is wet.\n"}
_INLINE = {"role": "assistant", "content": "<think>\nIt is wet.\n</think>\n\nWater."}
_CALL = {"function": {"name": "weather", "arguments": {"place": "Oslo"}}}
_CALLS = {"role": "assistant", "content": "", "reasoning_content": "I look.", "tool_calls": [_CALL, _CALL]}
_RESULTS = [{"role": "tool", "content": "rain"}, {"role": "tool", "content": "wind"}]
_PROBES: tuple[tuple[list[dict[str, Any]], Any], ...] = (
    ([_ASK, _PLAIN], None),
    ([_SYSTEM, _ASK, _THOUGHT], None),
    ([_ASK, _INLINE], None),
    ([_ASK, {**_CALLS, "content": "Wait."}], [_TOOL]),
    ([_SYSTEM, _ASK, _CALLS, *_RESULTS, _THOUGHT], [_TOOL, _TOOL]),
)


@cache
def training_templates() -> dict[str, str]:
    """Family -> source of its training template."""
    found = sorted((file for file in files(__name__).iterdir() if file.name.endswith(".jinja")), key=lambda f: f.name)
    return {file.name.removesuffix(".jinja"): file.read_text(encoding="utf-8") for file in found}


def write_alike(own: Render, other: Render) -> bool:
    """Whether two templates write every probe, up to each assistant turn and with it, to the byte."""
    try:
        for messages, tools in _PROBES:
            for end in (i for i, message in enumerate(messages) if message["role"] == "assistant"):
                beginnings = ((messages[:end], True), (messages[: end + 1], False))
                if any(own(said, opened, tools) != other(said, opened, tools) for said, opened in beginnings):
                    return False
    except DataError:
        return False
    return True
