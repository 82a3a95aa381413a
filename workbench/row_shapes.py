"""Canonical rows of one shape as rows of another: which conversions there are, and what each makes of a row.

Owns the table of conversions that need one row at a time, those that pair rows up, and how canonical rows are written
down so that reading them gives the same rows again. Pure: rows in, rows out; the same rows give the same rows. Of what
a shape cannot hold (a verdict, a second answer) nothing is kept, and tags and tools are.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from workbench.canonical_rows import Shape, assistant, group_of, prompt_of, user
from workbench.dataset_shapes import Recognition
from workbench.errors import UsageError

Row = Mapping[str, Any]
_COLUMNS: dict[Shape, tuple[str, tuple[str, ...]]] = {
    # shape: (form of dataset_shapes, its columns; each is called as its field)
    "text": ("text", ("text",)),
    "prompt-completion": ("pair", ("prompt", "completion", "tools")),
    "messages": ("messages", ("messages", "tools")),
    "preference": ("explicit", ("prompt", "chosen", "rejected", "margin", "tools")),
    "answers": ("answers", ("prompt", "a", "b")),
    "prompts": ("prompts", ("prompt", "tools")),
    "labelled": ("labelled", ("prompt", "completion", "label", "tools")),
}
_ANSWERS = ("completion", "chosen", "rejected", "a", "b")


def written_recognition(shape: Shape, why: str, *, plain: bool) -> Recognition:
    """How rows that `written` wrote are read again."""
    form, columns = _COLUMNS[shape]
    return Recognition(shape, form, why, {name: name for name in columns}, plain and shape not in ("messages", "text"))


def written(row: Row, shape: Shape, *, plain: bool) -> dict[str, Any]:
    """A canonical row as it is written: its fields, then its tags; texts become turns unless all rows are `plain`."""
    _, columns = _COLUMNS[shape]
    made = {name: row[name] for name in columns if row.get(name) is not None}
    if not plain and shape != "text":
        if isinstance(made.get("prompt"), str):
            made["prompt"] = [user(made["prompt"])]
        made |= {name: [assistant(made[name])] for name in _ANSWERS if isinstance(made.get(name), str)}
    if row.get("weight", 1.0) != 1.0:
        made["weight"] = row["weight"]
    for name, value in row["tags"].items():
        if name not in columns:
            made.setdefault(name, value)
    return made


def _chosen(row: Row) -> Iterator[Row]:
    yield {**row, "completion": row["chosen"]}


def _both_judged(row: Row) -> Iterator[Row]:
    for side, label in (("chosen", True), ("rejected", False)):
        yield {**row, "completion": row[side], "label": label}


def _without_verdict(row: Row) -> Iterator[Row]:
    """Which answer stands first is drawn by a hash of the row, so that it tells nothing."""
    first, second = row["chosen"], row["rejected"]
    if hashlib.sha256(str(row["id"]).encode()).digest()[0] & 1:
        first, second = second, first
    yield {**row, "a": first, "b": second}


def _as_messages(answer: str) -> Callable[[Row], Iterator[Row]]:
    def made(row: Row) -> Iterator[Row]:
        prompt, said = row["prompt"], row[answer]
        before = [user(prompt)] if isinstance(prompt, str) else prompt
        yield {**row, "messages": [*before, *([assistant(said)] if isinstance(said, str) else said)]}

    return made


def _last_turn(row: Row) -> Iterator[Row]:
    """The last assistant turn answers what stands before it; turns behind it are left out."""
    prompt = prompt_of(row)  # type: ignore[arg-type]  # any canonical row
    if prompt:
        yield {**row, "prompt": prompt, "completion": [row["messages"][len(prompt)]]}


def _desirable(row: Row) -> Iterator[Row]:
    if row["label"]:
        yield row


def _prompt(row: Row) -> Iterator[Row]:
    if prompt := prompt_of(row):  # type: ignore[arg-type]  # any canonical row
        yield {**row, "prompt": prompt}


def _same(row: Row) -> Iterator[Row]:
    yield row


def _desirable_messages(row: Row) -> Iterator[Row]:
    for kept in _desirable(row):
        yield from _as_messages("completion")(kept)


ONE_BY_ONE: dict[tuple[Shape, Shape], Callable[[Row], Iterator[Row]]] = {
    ("preference", "prompt-completion"): _chosen,
    ("preference", "labelled"): _both_judged,
    ("preference", "answers"): _without_verdict,
    ("preference", "messages"): _as_messages("chosen"),
    ("prompt-completion", "messages"): _as_messages("completion"),
    ("labelled", "messages"): _desirable_messages,
    ("labelled", "prompt-completion"): _desirable,
    ("messages", "prompt-completion"): _last_turn,
    **{(shape, "prompts"): _prompt for shape in ("preference", "prompt-completion", "messages", "labelled", "answers")},
    **{(shape, shape): _same for shape in _COLUMNS},
}
PAIRED: frozenset[tuple[Shape, Shape]] = frozenset(
    {("labelled", "preference"), ("prompt-completion", "answers"), ("prompt-completion", "preference")}
)


def require_conversion(source: str, shape: Shape, to: Shape, by: str) -> None:
    """UsageError where `source`, of one shape, cannot become the other; says what it can become."""
    possible = sorted({b for a, b in (*ONE_BY_ONE, *PAIRED) if a == shape})
    if to not in possible:
        raise UsageError(
            f"{source} has the shape {shape}, which cannot become {to}. It can become: {', '.join(possible)}."
        )
    if by and (shape, to) != ("prompt-completion", "preference"):
        raise UsageError(f"--by {by} says which of two answers is better: for prompt-completion to preference alone.")
    if not by and (shape, to) == ("prompt-completion", "preference"):
        raise UsageError(
            f"{source} has answers without a verdict. Name a column of numbers whose larger one wins: --by COLUMN; or "
            "convert to answers and judge them."
        )


def converted(rows: Callable[[], Iterable[Row]], shape: Shape, to: Shape, by: str = "") -> Iterator[Row]:
    """The rows as rows of the shape `to`; `rows` may be asked for twice."""
    if (shape, to) in ONE_BY_ONE:
        for row in rows():
            yield from ONE_BY_ONE[shape, to](row)
    elif shape == "labelled":
        yield from _paired_by_label(rows)
    else:
        yield from _paired_in_order(rows(), by)


def _paired_by_label(rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The first desirable answer to a prompt with its first undesirable one, the second with the second …"""
    counts: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    for row in rows():
        counts[group_of(row["prompt"])][row["label"]] += 1
    waiting: defaultdict[str, dict[tuple[bool, int], Row]] = defaultdict(dict)
    seen: Counter[tuple[str, bool]] = Counter()
    for row in rows():
        group, label = group_of(row["prompt"]), row["label"]
        place = seen[group, label]
        seen[group, label] += 1
        if place >= counts[group][not label]:
            continue
        other = waiting[group].pop((not label, place), None)
        if other is None:
            waiting[group][label, place] = row
            continue
        better, worse = (row, other) if label else (other, row)
        yield {**better, "chosen": better["completion"], "rejected": worse["completion"], "margin": None}


def _paired_in_order(rows: Iterable[Row], by: str) -> Iterator[Row]:
    """The first answer to a prompt with its second, the third with the fourth …; with `by` the larger number wins."""
    waiting: dict[str, Row] = {}
    for row in rows:
        if by and not _is_number(row["tags"].get(by)):
            continue
        group = group_of(row["prompt"])
        first = waiting.pop(group, None)
        if first is None:
            waiting[group] = row
        elif not by:
            yield {**first, "a": first["completion"], "b": row["completion"]}
        elif first["tags"][by] != row["tags"][by]:
            better, worse = (row, first) if row["tags"][by] > first["tags"][by] else (first, row)
            yield {**better, "chosen": better["completion"], "rejected": worse["completion"], "margin": None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
