"""Chat templates: Jinja source of a stranger, rendered in a sandbox.

Owns the environment a template sees: the names that transformers gives it (`raise_exception`, `strftime_now`, `tojson`,
`{% generation %}`, loop controls, the special tokens), plain strings and lists, and nothing that reaches Python.
A rendering is a pure function of its messages: `strftime_now` always tells the same date, so that a run that resumes
on another day sees the same tokens. Knows nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import DataError, ModelError

Message = Mapping[str, Any]
"""{"role": one of ROLES, "content": str}; further keys are handed to the template as they are."""

ROLES = ("system", "user", "assistant", "tool")

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

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The text of a conversation. Raises DataError where the template refuses it, with the template's reason."""
        try:
            text: str = self._compiled.render(
                messages=[dict(message) for message in messages],
                tools=None,
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


def check_messages(messages: Sequence[Message], where: str) -> None:
    """Raises DataError unless every message has one of ROLES and a text as its content."""
    if not messages:
        raise DataError(f"{where}: no messages: expected at least one {{role, content}}")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise DataError(f"{where}, message {number}: a {type(message).__name__}: expected {{role, content}}")
        if message.get("role") not in ROLES:
            raise DataError(f"{where}, message {number}: role {message.get('role')!r}: expected {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            found = type(message.get("content")).__name__
            raise DataError(f"{where}, message {number} ({message['role']}): content is a {found}: expected a text")


def map_contents(messages: Sequence[Message], change: Callable[[str], str]) -> list[dict[str, Any]]:
    """The messages with `change` applied to each content."""
    return [{**message, "content": change(message["content"])} for message in messages]


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
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
