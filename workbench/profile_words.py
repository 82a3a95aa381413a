"""A profile for a person: the tables that the command prints and the screen shows.

Owns their words. Text of strangers (column names, values) is in them as it is: whoever draws makes it safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.run.safe_text import safe
from workbench.terminal_output import Column, counted, number, table_lines

Table = tuple[str, Sequence[str], list[Sequence[str]]]
"""(heading, names of columns, rows of cells); a name that ends in "<" is of text, which stands left and may be cut."""
BAR = 24
_COUNTS = (("rows by number of turns", "turns"), ("rows with", "rows_with"), ("rows by script", "scripts"))
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def profile_title(told: Mapping[str, Any]) -> str:
    """What was read, and that it is a sample where it is one."""
    rows = counted(told["rows"], "row")
    if told["sample_of"] is not None:
        rows = f"a sample: the first {told['rows']:,} of {told['sample_of']:,} rows"
    return f"{told['dataset']} · {told['shape']} · {rows}, {told['usable']:,} usable"


def profile_lines(told: Mapping[str, Any], width: int) -> Iterator[tuple[str, bool]]:
    """(line, whether it is a heading) of all tables; safe for a terminal."""
    for heading, names, rows in profile_tables(told):
        columns = [Column(name.rstrip("<"), right=name[-1:] != "<", shrinks=name[-1:] == "<") for name in names]
        yield "", False
        yield safe(heading), True
        yield from ((line, False) for line in table_lines(columns, rows, width))
    if left_out := told["columns_left_out"]:
        yield safe(f"{len(left_out):,} more columns are not profiled, the first of them {left_out[0]!r}"), False


def profile_tables(told: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of a profile, the most asked for first."""
    yield _lengths(told)
    yield _columns(told)
    for heading, name in _COUNTS:
        if told[name]:
            yield heading, ("", "rows", "<"), [_bar_row(key, count, told) for key, count in told[name].items()]
    for part, found in [*told["characters"].items(), ("tokens", told.get("tokens", {}))]:
        if found.get("histogram"):
            yield _histogram(part, found)


def _lengths(told: Mapping[str, Any]) -> Table:
    names = ("<", "p50", "p90", "p95", "p99", "max", "mean")
    rows: list[Sequence[str]] = []
    for part, found in told["characters"].items():
        rows.append((f"{part}, characters", *_figures(found)))
    heading = "lengths"
    if tokens := told.get("tokens"):
        if tokens["count"]:
            rows.append(("an example, tokens", *_figures(tokens)))
            heading += f" · {100 * tokens['above_limit']:.1f} % of examples are longer than {tokens['limit']:,} tokens"
        if tokens["refused"]:
            heading += f" · {counted(tokens['refused'], 'row')} cannot be read by {tokens['model']}"
    return heading, names, rows


def _figures(found: Mapping[str, Any]) -> list[str]:
    return [f"{found[name]:,.0f}" for name in ("p50", "p90", "p95", "p99", "max", "mean")]


def _histogram(part: str, found: Mapping[str, Any]) -> Table:
    unit = "an example, tokens" if part == "tokens" else f"{part}, characters"
    rows = [_bar_row(f"{low:,} to {high - 1:,}" if high - low > 1 else f"{low:,}", count, {"usable": found["count"]})
            for low, high, count in found["histogram"]]  # fmt: skip
    return unit, ("", "rows", "<"), list(rows)


def _bar_row(name: str, count: int, told: Mapping[str, Any]) -> Sequence[str]:
    share = count / max(1, told["usable"])
    eighths = round(share * BAR * 8)
    bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return name, f"{count:,}", f"{bar} {100 * share:.1f} %".lstrip()


def _columns(told: Mapping[str, Any]) -> Table:
    names = ("column<", "holds<", "null", "missing", "empty", "distinct", "most often, or least to largest<")
    rows = [
        (
            one["name"],
            " or ".join(one["kinds"]) or "nothing",
            _some(one["nulls"]),
            _some(one["missing"]),
            _some(one["empty"]),
            f"{one['distinct']:,}" if one["distinct_is_exact"] else f"≈{one['distinct']:,}, {one['distinct_refusal']}",
            _often(one),
        )
        for one in told["columns"]
    ]
    return "columns", names, list(rows)


def _some(count: int) -> str:
    return f"{count:,}" if count else ""


def _often(one: Mapping[str, Any]) -> str:
    if numbers := one.get("numbers"):
        return f"{number(numbers['least'])} to {number(numbers['largest'])}, mean {number(numbers['mean'])}"
    least = "≥" if one["top_uncounted"] else ""
    return ", ".join(f"{text} ({least}{count:,})" for text, count in one["top"])
