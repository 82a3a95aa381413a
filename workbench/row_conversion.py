"""Turning one raw row into its canonical row, as the dataset's Recognition says, or saying why it cannot be.

Owns one converter for each form of `dataset_shapes`. Invariant: what comes out satisfies `canonical_rows`; what does
not is a RowRejected with a countable reason. Refuses to look at any other row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import orjson

from workbench.canonical_rows import (
    CanonicalRow,
    Completion,
    Message,
    Prompt,
    RowRejected,
    Tags,
    as_messages,
    as_text,
    as_tools,
    assistant,
    group_of,
    require_answer,
    require_open_prompt,
    text_of,
    user,
)
from workbench.dataset_shapes import Recognition
from workbench.dialogue_text import split_hh_pair, split_shared_text, split_shared_turns
from workbench.named_layouts import LAYOUTS, Layout

_MAX_TAGS = 32
_MAX_TAG_CHARACTERS = 200


def to_canonical(raw: dict[str, Any], recognition: Recognition, row_id: str) -> CanonicalRow:
    """The canonical row of one raw row; RowRejected with its reason where there is none."""
    view = _RowView(raw, recognition)
    fields = CONVERTERS[recognition.form](view)
    if "chosen" in fields and same_answer(fields["chosen"], fields["rejected"]):
        raise RowRejected("chosen equals rejected")
    if "a" in fields and same_answer(fields["a"], fields["b"]):
        raise RowRejected("both answers are equal")
    if recognition.shape == "preference":
        fields |= {"weight": 1.0, "margin": view.margin()}
    if recognition.shape in ("preference", "answers"):
        fields["group"] = group_of(fields["prompt"])
    if tools := as_tools(view.value("tools")):
        fields["tools"] = tools
    return cast(CanonicalRow, {"id": row_id, **fields, "tags": view.tags()})


def same_answer(first: Completion, second: Completion) -> bool:
    """Whether two answers say the same, the white space around them aside."""
    return text_of(first).strip() == text_of(second).strip()


@dataclass(frozen=True)
class _RowView:
    """A raw row seen through the mapping."""

    raw: dict[str, Any]
    recognition: Recognition

    def value(self, field: str) -> Any:
        """The value of a field, or None; text that holds a JSON list of turns is parsed."""
        column = self.recognition.mapping.get(field)
        if column is None:
            return None
        value = self.raw.get(column)
        if column in self.recognition.json_columns and isinstance(value, str) and value.strip():
            try:
                return orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise RowRejected(f"{field} is not valid JSON", str(error)[:200]) from error
        return value

    def prompt(self) -> Prompt:
        """System, history, prompt and input put together in the order in which they were said."""
        value = self.value("prompt")
        opening = self.system() + self.history()
        if isinstance(value, (list, dict)) and not self.recognition.plain:
            return require_open_prompt(opening + as_messages(value, "prompt"))
        text = as_text(value, "prompt")
        extra = self.value("input")
        if isinstance(extra, str) and extra.strip():
            text = f"{text}\n{extra}"
        return text if self.recognition.plain and not opening else [*opening, user(text)]

    def answer(self, field: str, of: Prompt, what: str = "answer") -> Completion:
        """The answer in a field; a string only where the prompt is one."""
        return as_answer(self.value(field), of, what)

    def system(self) -> list[Message]:
        value = self.value("system")
        return [{"role": "system", "content": value}] if isinstance(value, str) and value.strip() else []

    def history(self) -> list[Message]:
        turns: list[Message] = []
        for exchange in self.value("history") or []:
            if not isinstance(exchange, list) or len(exchange) != 2:
                raise RowRejected("history is not a list of exchanges")
            turns += [user(as_text(exchange[0], "turn")), assistant(as_text(exchange[1], "turn"))]
        return turns

    def margin(self) -> float | None:
        """The margin of a preference where the dataset has one."""
        value = self.value("margin")
        if value is None or value == "":
            return None
        try:
            margin = float(value)
        except (TypeError, ValueError) as error:
            raise RowRejected("margin is not a number") from error
        if not math.isfinite(margin):
            raise RowRejected("margin is not a number")
        return margin

    def verdict(self) -> bool:
        """Whether a labelled answer is desirable."""
        value = self.value("label")
        label = None if value is None else _as_label(value)
        if not isinstance(label, bool):
            raise RowRejected("the label is neither true nor false", f"{value!r}"[:80])
        return label

    def tags(self) -> Tags:
        """Small values of columns that the shape does not use, and the label."""
        used = {column for field, column in self.recognition.mapping.items() if field != "label"}
        tags: Tags = {}
        for column, value in self.raw.items():
            unused = column not in used and column != self.recognition.mapping.get("label")
            if unused and len(tags) < _MAX_TAGS and _is_small(value):
                tags[column] = value
        if (label := self.value("label")) is not None:
            tags["label"] = _as_label(label)
        return tags


def _is_small(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _MAX_TAG_CHARACTERS
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 1 << 63


def as_answer(value: Any, of: Prompt, what: str = "answer") -> Completion:
    """An answer in canonical form: turns after a prompt of turns, a string after a string."""
    if isinstance(value, (list, dict)) and not isinstance(of, str):
        return require_answer(as_messages(value, what))
    text = as_text(value, what)
    return text if isinstance(of, str) else [assistant(text)]


def _as_label(value: Any) -> bool | str:
    """A desirable/undesirable label, true or false where that is clear."""
    if isinstance(value, (bool, int, float)):
        return bool(value)
    text = str(value).strip().lower()
    return {"true": True, "false": False, "1": True, "0": False}.get(text, str(value)[:_MAX_TAG_CHARACTERS])


Fields = dict[str, Any]


def _text(view: _RowView) -> Fields:
    return {"text": as_text(view.value("text"), "text")}


def _prompts(view: _RowView) -> Fields:
    return {"prompt": view.prompt()}


def _pair(view: _RowView) -> Fields:
    prompt = view.prompt()
    return {"prompt": prompt, "completion": view.answer("completion", prompt, "completion")}


def _turns(view: _RowView) -> list[Message]:
    turns = as_messages(view.value("messages"), "messages")
    return turns if turns[0]["role"] == "system" else view.system() + turns


def _messages(view: _RowView) -> Fields:
    turns = _turns(view)
    if all(turn["role"] != "assistant" for turn in turns):
        raise RowRejected("no assistant turn")
    return {"messages": turns}


def _judged_turns(view: _RowView) -> Fields:
    turns = _turns(view)
    if turns[-1]["role"] != "assistant":
        raise RowRejected("the last turn is not the assistant's")
    if len(turns) < 2:
        raise RowRejected("no prompt")
    return {"prompt": require_open_prompt(turns[:-1]), "completion": turns[-1:]}


def _labelled(view: _RowView) -> Fields:
    return {**(_judged_turns(view) if "messages" in view.recognition.mapping else _pair(view)), "label": view.verdict()}


def _explicit(view: _RowView) -> Fields:
    prompt = view.prompt()
    return {"prompt": prompt, "chosen": view.answer("chosen", prompt), "rejected": view.answer("rejected", prompt)}


def _prefixed(view: _RowView) -> Fields:
    prompt = view.prompt()
    start = as_text(view.value("prompt"), "prompt")
    fields: Fields = {"prompt": prompt}
    for side in ("chosen", "rejected"):
        text = as_text(view.value(side), "answer")
        if not text.startswith(start):
            raise RowRejected("an answer does not begin with the prompt")
        fields[side] = as_answer(text.removeprefix(start).strip(), prompt)
    return fields


def _hh(view: _RowView) -> Fields:
    chosen, rejected = as_text(view.value("chosen"), "answer"), as_text(view.value("rejected"), "answer")
    prompt, better, worse = split_hh_pair(chosen, rejected)
    return {"prompt": prompt, "chosen": better, "rejected": worse}


def _implicit_turns(view: _RowView) -> Fields:
    sides = (as_messages(view.value(side), "answer") for side in ("chosen", "rejected"))
    prompt, better, worse = split_shared_turns(*sides)
    return {"prompt": prompt, "chosen": better, "rejected": worse}


def _implicit_text(view: _RowView) -> Fields:
    sides = (as_text(view.value(side), "answer") for side in ("chosen", "rejected"))
    start, better, worse = split_shared_text(*sides)
    prompt: Prompt = start if view.recognition.plain else [user(start)]
    return {"prompt": prompt, "chosen": as_answer(better, prompt), "rejected": as_answer(worse, prompt)}


def _answers(view: _RowView) -> Fields:
    prompt = view.prompt()
    return {"prompt": prompt, "a": view.answer("a", prompt), "b": view.answer("b", prompt)}


def _answer_list(view: _RowView) -> Fields:
    prompt, both = view.prompt(), view.value("completion")
    if not isinstance(both, list) or len(both) != 2:
        raise RowRejected("not two answers")
    first, second = (_unwrap(answer) for answer in both)
    return {"prompt": prompt, "a": as_answer(first, prompt), "b": as_answer(second, prompt)}


def _unwrap(answer: Any) -> Any:
    """The text of an answer that stands in an object of its own, as UltraFeedback and Nectar have it."""
    if isinstance(answer, dict) and "role" not in answer and "from" not in answer:
        return next((answer[key] for key in ("response", "answer", "text", "completion") if key in answer), None)
    return answer


def _by_layout(layout: Layout) -> Callable[[_RowView], Fields]:
    def made(view: _RowView) -> Fields:
        for column in layout.columns:
            if view.raw.get(column) is None:
                raise RowRejected(f"missing {column}")
        return layout.convert(view.raw)

    return made


CONVERTERS: dict[str, Callable[[_RowView], Fields]] = {
    "text": _text,
    "prompts": _prompts,
    "pair": _pair,
    "messages": _messages,
    "judged-turns": _judged_turns,
    "labelled": _labelled,
    "explicit": _explicit,
    "prefixed": _prefixed,
    "hh": _hh,
    "implicit-turns": _implicit_turns,
    "implicit-text": _implicit_text,
    "answers": _answers,
    "answer-list": _answer_list,
    **{layout.form: _by_layout(layout) for layout in LAYOUTS},
}
