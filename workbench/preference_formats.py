"""Preference rows in the forms of other tools: what each calls its columns, and what it cannot hold.

Owns the forms. trl (prompt, chosen, rejected) is TRL's and the Hub's; kto (prompt, completion, label) is TRL's unpaired
form, two rows for each pair; openai is the preference form of OpenAI's fine-tuning files. Invariant: a row that a form
cannot hold is an error that names it, never a row that says something else. Refuses to know about files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from workbench.canonical_rows import Completion, PreferenceRow, Prompt, assistant, user
from workbench.errors import UsageError

Form = Literal["trl", "kto", "openai"]
FORMS: tuple[Form, ...] = get_args(Form)
_OPENAI_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name")


def rows_in(form: Form, rows: Iterator[PreferenceRow]) -> Iterator[dict[str, Any]]:
    """Preference rows in a form."""
    for row in rows:
        yield from _MAKERS[form](row)


def as_turns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose texts are turns, for columns that have one type."""
    return {name: _turns_of(name, value) for name, value in row.items()}


def _turns_of(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    return [user(value)] if name == "prompt" else [assistant(value)]


def _trl(row: PreferenceRow) -> Iterator[dict[str, Any]]:
    yield {"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]}


def _kto(row: PreferenceRow) -> Iterator[dict[str, Any]]:
    yield {"prompt": row["prompt"], "completion": row["chosen"], "label": True}
    yield {"prompt": row["prompt"], "completion": row["rejected"], "label": False}


def _openai(row: PreferenceRow) -> Iterator[dict[str, Any]]:
    yield {
        "input": {"messages": _messages(row["prompt"], row["id"])},
        "preferred_output": _output(row["chosen"], row["id"]),
        "non_preferred_output": _output(row["rejected"], row["id"]),
    }


def _messages(prompt: Prompt, row: str) -> list[dict[str, Any]]:
    turns = [user(prompt)] if isinstance(prompt, str) else prompt
    if not any(turn["role"] == "user" for turn in turns):
        raise UsageError(
            f"row {row}: its prompt has no turn of a user, which OpenAI's form needs. Use another --format."
        )
    return [{key: value for key, value in turn.items() if key in _OPENAI_KEYS} for turn in turns]


def _output(answer: Completion, row: str) -> list[dict[str, Any]]:
    turns = [assistant(answer)] if isinstance(answer, str) else answer
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise UsageError(
            f"row {row}: an answer has {len(turns)} turns; OpenAI's form holds one, of the assistant. Choose another."
        )
    return [{key: value for key, value in turns[0].items() if key in _OPENAI_KEYS}]


_MAKERS: Mapping[Form, Callable[[PreferenceRow], Iterator[dict[str, Any]]]] = {
    "trl": _trl, "kto": _kto, "openai": _openai,
}  # fmt: skip
