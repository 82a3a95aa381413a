"""Chat templates: Jinja source of a stranger, rendered in a sandbox.

Owns the environment a template sees: the names that transformers gives it (`raise_exception`, `strftime_now`, `tojson`,
`{% generation %}`, loop controls, the special tokens), plain strings and lists, and nothing that reaches Python.
A rendering is a pure function of its messages: `strftime_now` always tells the same date, so that a run that resumes
on another day sees the same tokens. Knows nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.runtime
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.data.chat_messages import THINKING, Message, Tools
from engine.errors import DataError, ModelError

TEMPLATE_DATE = datetime(2024, 7, 26)
"""What `strftime_now` tells: the day that Llama 3's published template falls back to where there is no clock."""

_REFUSALS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What a template can raise: on purpose, by the sandbox, or by a message that it did not expect."""


class ChatTemplate:
    """One compiled template with the special-token texts it may name."""

    def __init__(self, source: str, variables: Mapping[str, str], where: str) -> None:
        """`variables` are names like `bos_token`; `where` is what an error calls the template. Raises ModelError."""
        self.source = source
        self._where = where
        self._variables = dict(variables)
        try:
            self._compiled = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(
                f"{where}: the chat template does not parse ({error}): repair chat_template.jinja in the model's folder"
            ) from error

    @property
    def tells_the_date(self) -> bool:
        """True where the template writes today's date, which here is TEMPLATE_DATE."""
        return "strftime_now" in self.source

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool, tools: Tools | None = None) -> str:
        """The text of a conversation. Raises DataError where the template refuses it, with the template's reason."""
        try:
            text: str = self._compiled.render(
                messages=[dict(message) for message in messages],
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except _REFUSALS as error:
            reason = str(error) or type(error).__name__
            roles = ", ".join(str(message.get("role")) for message in messages) or "none"
            raise DataError(
                f"the chat template of {self._where} refuses the conversation (roles: {roles}): {reason}"
            ) from error
        return text

    def require_written(self, messages: Sequence[Message], tools: Tools | None) -> None:
        """Raises DataError where the template leaves out what a row holds beside the texts of its messages.

        Nothing of a row is lost silently: what is trained would not be what the row says.
        """
        missing: list[str] = []
        if tools and not self._writes_tools:
            missing.append("the definitions of tools")
        if any(message.get("tool_calls") for message in messages) and not self._writes_tool_calls:
            missing.append("tool calls")
        if any(message.get(THINKING) for message in messages) and not self._writes_thinking:
            missing.append(f"{THINKING} (put it into the content as <think>…</think>, or leave it out)")
        if missing:
            raise DataError(f"the chat template of {self._where} does not write {' and '.join(missing)}")

    @cached_property
    def _writes_tools(self) -> bool:
        return self._writes([_ASK], _PROBE_TOOLS)

    @cached_property
    def _writes_tool_calls(self) -> bool:
        call = {"id": "abcdefghi", "type": "function", "function": {"name": _PROBE, "arguments": {"a": 1}}}
        return self._writes([_ASK, {"role": "assistant", "content": "", "tool_calls": [call]}], None)

    @cached_property
    def _writes_thinking(self) -> bool:
        return self._writes([_ASK, {"role": "assistant", "content": "b", THINKING: _PROBE}], None)

    def _writes(self, messages: Sequence[Message], tools: Tools | None) -> bool:
        """Whether the probe's word comes out."""
        try:
            return _PROBE in self.render(messages, add_generation_prompt=False, tools=tools)
        except DataError:
            return False


_PROBE = "wordofaprobe"
_ASK = {"role": "user", "content": "a"}
_PROBE_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": _PROBE,
            "description": "b",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer", "description": "c"}}},
        },
    }
]


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox of jinja, which asks of every attribute whether it is safe: of plain values it is asked once.

    The answer depends on the type and the name alone, and they have few names: those that are not attributes of theirs
    never come here.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._safe: dict[tuple[type, str], bool] = {}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As jinja's own, without the detour through an AttributeError for a key of a plain dictionary."""
        if type(obj) is dict and attribute not in _OF_DICTIONARIES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        kind = type(obj)
        if kind not in _PLAIN:
            return super().is_safe_attribute(obj, attr, value)
        known = self._safe.get((kind, attr))
        if known is None:
            known = self._safe[kind, attr] = super().is_safe_attribute(obj, attr, value)
        return known


_OF_DICTIONARIES = frozenset(dir(dict))
_PLAIN = frozenset({str, dict, list, tuple, int, float, bool, jinja2.runtime.LoopContext})


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=TEMPLATE_DATE.strftime,
        dict=lambda *args, **kwargs: dict(*args, **kwargs),
        namespace=_Namespace,
    )
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own filter escapes HTML characters, which no template wants."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Namespace(jinja2.utils.Namespace):
    """A namespace whose attributes may not begin with an underscore: dunder names lead out of the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace attribute may not begin with an underscore: {name!r}")


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` renders its body, in a scope of its own as transformers does.

    Masks are proved from prefixes, never read from the tag.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)
