"""Values that a person gives to a chat template, and the one template that has them inside.

Owns how they are written (`enable_thinking=false, date_string="1 Jan 2026"`) and how they are put in: as defaults at
the head of the template. So one text says how a conversation is rendered, and whoever loads the saved tokenizer
(transformers, vLLM) renders as trained without being told; a value that they give themselves still wins.
"""

from __future__ import annotations

import json
import re
from typing import Any

from engine.errors import ConfigError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_GIVEN_BY_US = ("messages", "tools", "documents", "add_generation_prompt")
_EXPECTED = "expected NAME=VALUE, separated by commas, for example enable_thinking=false"


def parse_arguments(text: str) -> dict[str, Any]:
    """NAME -> value; a value is JSON, and text where it is none. Raises ConfigError for what cannot be read."""
    found: dict[str, Any] = {}
    rest = text.strip()
    while rest:
        name, equals, rest = rest.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name) or name in found:
            raise ConfigError(f"[chat] arguments = {text!r}: {name!r} is no name of an argument: {_EXPECTED}")
        if name in _GIVEN_BY_US or name.endswith("_token"):
            raise ConfigError(
                f"[chat] arguments = {text!r}: {name} is given to every template by this program: remove it"
            )
        found[name], rest = _value(rest.strip())
        if rest and not rest.startswith(","):
            raise ConfigError(f"[chat] arguments = {text!r}: {rest!r} follows the value of {name}: {_EXPECTED}")
        rest = rest.removeprefix(",").strip()
    return found


def with_arguments(source: str, arguments: dict[str, Any]) -> str:
    """The template with `arguments` as the defaults of its variables."""
    lines = [
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_as_jinja(value)} %}}{{%- endif %}}\n"
        for name, value in arguments.items()
    ]
    return "".join(lines) + source


def _value(text: str) -> tuple[Any, str]:
    """The value that `text` begins with, and what follows it."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        if not text[end:].strip() or text[end:].lstrip().startswith(","):
            return value, text[end:].lstrip()
    except ValueError:
        pass
    word, comma, rest = text.partition(",")
    return word.strip(), comma + rest


def _as_jinja(value: Any) -> str:
    """A JSON value as a literal of Jinja, which writes nothing as none."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_as_jinja(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_jinja, value)) + "]"
    # Jinja reads the escapes of a Python literal; those of JSON are among them, but for the surrogate pairs that
    # ensure_ascii would make. Braces would end the tag that the literal stands in.
    return (
        "none"
        if value is None
        else json.dumps(value, ensure_ascii=False).replace("{", "\\x7b").replace("}", "\\x7d").replace("%", "\\x25")
    )
