"""Which shape a dataset has, told from its columns and first rows, and why.

Owns the table of forms (how the tools people use lay out their rows) and the person's mapping over it. Invariant: the
answer is a Recognition that says in one sentence what was seen, and everything that `row_conversion` needs to turn
each later row into the same canonical shape. Refuses to guess: a file that fits no form is an error that lists its
columns and shows how to map them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from workbench.canonical_rows import SHAPES, Shape, type_name
from workbench.dialogue_text import is_hh_dialogue
from workbench.errors import UnreadableData, UsageError
from workbench.named_layouts import LAYOUTS, layout_of

FIELDS = (
    *("text", "prompt", "completion", "messages", "chosen", "rejected", "a", "b"),
    *("system", "input", "history", "label", "margin", "tools"),
)
"""What `--map FIELD=COLUMN` may name. Besides: shape=SHAPE and as=chat|plain."""
_ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "prompt": ("prompt", "instruction", "question", "query"),
    "completion": ("completion", "response", "answer", "output"),
    "messages": ("messages", "conversations", "conversation"),
    "chosen": ("chosen", "chosen_response"),
    "rejected": ("rejected", "rejected_response"),
    "system": ("system",),
    "input": ("input",),
    "history": ("history",),
    "label": ("label", "kto_tag"),
    "margin": ("margin",),
    "tools": ("tools",),
}
_ANSWER_NAMES = (
    *(("a", "b"), ("answer_a", "answer_b"), ("response_a", "response_b"), ("completion_a", "completion_b")),
    *(("answer_1", "answer_2"), ("response_1", "response_2"), ("output_1", "output_2")),
)
_ANSWER_LISTS = ("completions", "responses", "answers")


@dataclass(frozen=True)
class Recognition:
    """The shape of a dataset and how its rows become canonical; stored, so that later reads give the same rows."""

    shape: Shape
    form: str
    """The layout of the raw rows; a key of row_conversion.CONVERTERS."""
    why: str
    """One sentence for a person. May quote column names: text from strangers."""
    mapping: dict[str, str]
    """Field → column, complete: nothing is looked up by alias after this."""
    plain: bool = False
    """Plain texts stay strings, which no chat template touches; else they become one user and one assistant turn."""
    json_columns: tuple[str, ...] = ()
    """Columns of text that hold a JSON list of turns (CSV cannot hold anything else)."""


@dataclass
class _Columns:
    """The columns of the sampled rows, seen through the person's mapping."""

    sample: list[dict[str, Any]]
    mapping: dict[str, str]
    kinds: dict[str, set[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = {}
        for row in self.sample:
            for column, value in row.items():
                if value is not None:
                    self.kinds.setdefault(column, set()).add(_kind(value))

    def find(self, wanted: str) -> str | None:
        """The column of a field: the mapped one, else the first alias that is present and not mapped elsewhere."""
        if wanted in self.mapping:
            return self.mapping[wanted]
        taken = set(self.mapping.values())
        present = (name for name in _ALIASES.get(wanted, ()) if name in self.kinds and name not in taken)
        return next(present, None)

    def holds_turns(self, column: str | None) -> bool:
        """Whether a column holds messages (or one message) rather than text, in most sampled rows."""
        return column is not None and bool(self.kinds.get(column, set()) & {"turns", "turns as JSON"})

    def share(self, column: str, test: Callable[[Any], bool]) -> float:
        """The share of sampled rows whose value passes `test`; rows without the column fail it."""
        return sum(1 for row in self.sample if test(row.get(column))) / max(1, len(self.sample))

    def with_extras(self, mapping: dict[str, str | None], *extras: str) -> dict[str, str]:
        """`mapping` without its Nones, plus those of the optional fields `extras` that have a column."""
        found = {name: column for name, column in mapping.items() if column}
        for extra in extras:
            column = self.find(extra)
            if column and column not in found.values():
                found[extra] = column
        return found


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "turns as JSON" if value.lstrip()[:1] == "[" and _is_turns(_json_or_none(value)) else "text"
    if _is_turns(value if isinstance(value, list) else [value]):
        return "turns"
    return type_name(value)


def _is_turns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def _json_or_none(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


_NAMED = {layout.form for layout in LAYOUTS}


def recognise(sample: list[dict[str, Any]], mapping: Mapping[str, str] | None = None) -> Recognition:
    """The shape of the rows in `sample`; `mapping` (field → column, shape → SHAPE, as → chat|plain) overrides."""
    asked = dict(mapping or {})
    shape, plain = asked.pop("shape", None), asked.pop("as", "chat")
    columns = _Columns(sample, asked)
    _check_mapping(columns, shape, plain)
    for form in (_named, *_FORMS):
        found = form(columns)
        if found is None or (shape and found.shape != shape) or not asked.keys() <= found.mapping.keys():
            continue
        return _complete(found, columns, plain == "plain", bool(asked or shape))
    raise UnreadableData(_unrecognised(columns, shape))


def column_kinds(sample: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What each column of the sampled rows holds, in words; a column of nothing but nulls holds nothing."""
    names = {column: None for row in sample for column in row}
    kinds = _Columns(sample, {}).kinds
    return {name: sorted(kinds.get(name, ())) for name in names}


def _complete(found: Recognition, columns: _Columns, plain: bool, mapped: bool) -> Recognition:
    json_columns = tuple(c for c in found.mapping.values() if "turns as JSON" in columns.kinds.get(c, set()))
    all_text = not any(columns.holds_turns(column) for column in found.mapping.values())
    can_be_plain = all_text and found.form in ("explicit", "prefixed", "implicit-text", "answers", "pair", "prompts")
    why = found.why
    if found.form != "text" and all_text and found.form != "hh" and found.form not in _NAMED:
        kept = plain and can_be_plain
        turns = {"prompts": "one user turn", "answers": "one user turn, and one assistant turn for each answer"}
        become = turns.get(found.shape, "one user and one assistant turn")
        why += "; texts stay plain (as=plain)" if kept else f"; texts become {become}"
    why = ("as mapped: " if mapped else "") + why
    return Recognition(found.shape, found.form, why + ".", found.mapping, plain and can_be_plain, json_columns)


def _check_mapping(columns: _Columns, shape: str | None, plain: str) -> None:
    if shape is not None and shape not in SHAPES:
        raise UsageError(f"--map shape={shape}: there is no such shape. Shapes: {', '.join(SHAPES)}.")
    if plain not in ("chat", "plain"):
        raise UsageError(f"--map as={plain}: must be chat or plain.")
    for name, column in columns.mapping.items():
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(f"--map {name}={column}: {name} is not a field.{meant} Fields: {', '.join(FIELDS)}.")
        if column not in columns.kinds:
            near = difflib.get_close_matches(column, list(columns.kinds), 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"--map {name}={column}: no column of that name has a value.{meant} "
                f"Columns: {', '.join(list(columns.kinds)[:20])}."
            )


def _unrecognised(columns: _Columns, shape: str | None) -> str:
    seen = "; ".join(f"{name} ({' or '.join(sorted(kinds))})" for name, kinds in list(columns.kinds.items())[:12])
    more = f"; and {len(columns.kinds) - 12} more" if len(columns.kinds) > 12 else ""
    wanted = f"the shape {shape}" if shape else "any known shape (" + ", ".join(SHAPES) + ")"
    first = next((name for name, kinds in columns.kinds.items() if "text" in kinds), "COLUMN")
    return (
        f"the rows do not fit {wanted}. Columns: {seen or 'none'}{more}. Say which is which, for example: "
        f"--map text={first}, or --map prompt=COLUMN --map completion=COLUMN."
    )


def _named(columns: _Columns) -> Recognition | None:
    layout = layout_of(columns.sample)
    if layout is None:
        return None
    return Recognition(layout.shape, layout.form, layout.why, {name: name for name in layout.columns})


def _preference(columns: _Columns) -> Recognition | None:
    chosen, rejected = columns.find("chosen"), columns.find("rejected")
    if not chosen or not rejected:
        return None
    prompt = columns.find("prompt") or columns.find("messages") or columns.find("input")
    pair: dict[str, str | None] = {"chosen": chosen, "rejected": rejected}
    names = f"columns {chosen!r} and {rejected!r}"
    if columns.share(chosen, lambda value: isinstance(value, str) and is_hh_dialogue(value)) > 0.5:
        why = f'{names} hold dialogues with "Human:" and "Assistant:" turns (HH-RLHF); the prompt is what they share'
        return Recognition("preference", "hh", why, columns.with_extras(pair, "margin"))
    if columns.share(chosen, _holds_user_turn) > 0.5:
        why = f"{names} hold whole conversations; the prompt is the turns with which both begin"
        return Recognition("preference", "implicit-turns", why, columns.with_extras(pair, "margin"))
    if prompt is None:
        why = f"{names} and no prompt column; the prompt is the text with which both begin"
        return Recognition("preference", "implicit-text", why, columns.with_extras(pair, "margin"))
    found = columns.with_extras({"prompt": prompt, **pair}, "system", "input", "history", "margin", "tools")
    if _both_begin_with_prompt(columns, prompt, chosen, rejected):
        why = f"columns {prompt!r}, {chosen!r} and {rejected!r}; both answers begin with the prompt, which is taken off"
        return Recognition("preference", "prefixed", why, found)
    why = f"columns {prompt!r}, {chosen!r} and {rejected!r}: a prompt with its preferred and its rejected answer"
    return Recognition("preference", "explicit", why, found)


def _holds_user_turn(value: Any) -> bool:
    value = _json_or_none(value) if isinstance(value, str) and value.lstrip()[:1] == "[" else value
    return _is_turns(value) and any(turn.get("role", turn.get("from")) in ("user", "human") for turn in value)


def _both_begin_with_prompt(columns: _Columns, prompt: str, chosen: str, rejected: str) -> bool:
    def begins(row: dict[str, Any]) -> bool:
        start, first, second = row.get(prompt), row.get(chosen), row.get(rejected)
        texts = isinstance(start, str) and isinstance(first, str) and isinstance(second, str)
        return texts and bool(start) and str(first).startswith(str(start)) and str(second).startswith(str(start))

    return all(map(begins, columns.sample))


def _answers(columns: _Columns) -> Recognition | None:
    prompt = columns.find("prompt") or columns.find("messages") or columns.find("input")
    if prompt is None:
        return None
    optional = ("system", "input", "history")
    names = (("a", "b"),) if {"a", "b"} & columns.mapping.keys() else _ANSWER_NAMES
    for a, b in names:
        a, b = columns.mapping.get("a", a), columns.mapping.get("b", b)
        if a in columns.kinds and b in columns.kinds and prompt not in (a, b):
            why = f"columns {prompt!r}, {a!r} and {b!r}: two answers without a verdict"
            return Recognition(
                "answers", "answers", why, columns.with_extras({"prompt": prompt, "a": a, "b": b}, *optional)
            )
    for name in _ANSWER_LISTS:
        if columns.share(name, lambda value: isinstance(value, list) and len(value) == 2) > 0.5:
            why = f"columns {prompt!r} and {name!r}, a list of two: two answers without a verdict"
            found = columns.with_extras({"prompt": prompt, "completion": name}, *optional)
            return Recognition("answers", "answer-list", why, found)
    return None


def _labelled(columns: _Columns) -> Recognition | None:
    label = columns.find("label")
    if label is None or columns.share(label, _is_verdict) <= 0.5:
        return None
    found = _messages(columns) or _pair(columns)
    if found is None or found.mapping.get("label") != label:
        return None
    names = " and ".join(
        repr(found.mapping[name]) for name in ("messages", "prompt", "completion") if name in found.mapping
    )
    last = ", of which the last assistant turn is the answer" if "messages" in found.mapping else ""
    why = f"columns {names}{last}, and in {label!r} whether the answer is a desirable one (KTO)"
    return Recognition("labelled", "labelled", why, found.mapping)


def _is_verdict(value: Any) -> bool:
    return value in (0, 1) or (isinstance(value, str) and value.strip().lower() in ("true", "false", "0", "1"))


def _messages(columns: _Columns) -> Recognition | None:
    turns = columns.find("messages")
    if turns is None or not columns.holds_turns(turns):
        return None
    found = columns.with_extras({"messages": turns}, "system", "label", "tools")
    if "label" in found:
        why = f"columns {turns!r} and {found['label']!r}: conversations judged one by one (KTO)"
        why += "; the last assistant turn is the completion, and the label is kept as a tag"
        return Recognition("prompt-completion", "judged-turns", why, found)
    return Recognition("messages", "messages", f"column {turns!r} holds lists of turns", found)


def _pair(columns: _Columns) -> Recognition | None:
    prompt, completion = columns.find("prompt"), columns.find("completion")
    if prompt is None and completion is not None:
        prompt = columns.find("input")
    if prompt is None or completion is None or prompt == completion:
        return None
    given: dict[str, str | None] = {"prompt": prompt, "completion": completion}
    found = columns.with_extras(given, "system", "input", "history", "label", "tools")
    why = f"columns {prompt!r} and {completion!r}"
    if prompt == "instruction":
        why += " (Alpaca)" + ("; 'input' follows the instruction where it is not empty" if "input" in found else "")
    if "label" in found:
        why += f"; the label in {found['label']!r} is kept as a tag"
    return Recognition("prompt-completion", "pair", why, found)


def _text(columns: _Columns) -> Recognition | None:
    column = columns.find("text")
    if column is None:
        return None
    return Recognition("text", "text", f"column {column!r} holds the whole text", {"text": column})


def _prompts(columns: _Columns) -> Recognition | None:
    prompt = columns.find("prompt")
    if prompt is None:
        return None
    found = columns.with_extras({"prompt": prompt}, "system", "input", "history", "tools")
    return Recognition("prompts", "prompts", f"column {prompt!r} and no answer column", found)


_FORMS = (_preference, _answers, _labelled, _messages, _pair, _text, _prompts)
"""In order: the first that fits wins, so those that ask for more columns stand first."""
