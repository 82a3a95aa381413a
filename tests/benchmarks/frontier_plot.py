"""The plot and the table of the reward-KL frontier as text, from its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

WIDTH, HEIGHT = 72, 18
"""Cells of the plot's field."""
MARKS = {"sft": "S", "dpo": "D", "ppo": "P", "grpo": "G"}
SHARED = "*"
"""A cell with points of more than one method."""
X_TICKS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def draw(rows: Sequence[Mapping[str, str]]) -> str:
    """The plot over the table: gold score against the root of the sampled KL, one mark a run."""
    return "\n".join([*_plot(rows), "", *_table(rows)])


def _plot(rows: Sequence[Mapping[str, str]]) -> list[str]:
    points = [(math.sqrt(max(0.0, float(row["kl_nats"]))), float(row["gold"]), MARKS[row["method"]]) for row in rows]
    right = max(x for x, _, _ in points) * 1.02 or 1.0
    low, high, below = _range([y for _, y, _ in points], [y for _, y, mark in points if mark != MARKS["sft"]])
    field = [[" "] * WIDTH for _ in range(HEIGHT)]
    for x, y, mark in points:
        column = round(x / right * (WIDTH - 1))
        line = min(HEIGHT - 1, round((high - y) / ((high - low) or 1.0) * (HEIGHT - 1)))
        there = field[line][column]
        field[line][column] = mark if there in (" ", mark) else SHARED
    marks = ", ".join(f"{mark} {method.upper()}" for method, mark in MARKS.items())
    far = f"; S lies below, at {below:.3f}" if below else ""
    lines = [f"gold score of held-out answers   ({marks}, {SHARED} several{far})"]
    for number, cells in enumerate(field):
        value = high - (high - low) * number / (HEIGHT - 1)
        label = f"{value:.3f}" if number % 4 == 0 or number == HEIGHT - 1 else ""
        lines.append(f"{label:>6} │{''.join(cells)}".rstrip())
    return [*lines, *_axis(right)]


def _range(everything: Sequence[float], trained: Sequence[float]) -> tuple[float, float, float]:
    """Both ends of the axis of scores; the lowest score, too, where it lies so far below that it has no room there."""
    lowest = min(everything)
    low, high = math.floor(min(trained, default=lowest) * 200) / 200, math.ceil(max(everything) * 200) / 200
    if lowest < low - (high - low):
        return low, high, lowest
    return min(low, math.floor(lowest * 200) / 200), high, 0.0


def _axis(right: float) -> list[str]:
    ticks, labels = ["─"] * WIDTH, [" "] * (WIDTH + 4)
    for tick in X_TICKS:
        column = round(math.sqrt(tick) / right * (WIDTH - 1))
        text = f"{tick:g}"
        if column < WIDTH and all(cell == " " for cell in labels[column : column + len(text) + 1]):
            ticks[column] = "┴"
            labels[column : column + len(text)] = text
    return [
        f"{'':>6} └{''.join(ticks)}",
        f"{'':>8}{''.join(labels)}".rstrip(),
        f"{'':>8}sampled KL(policy, tuned model), nats an answer; root scale",
    ]


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    lines = [
        f"{'':<5} {'setting':<22} {'gold over SFT, each seed ± s.e.':<40} {'KL, nats, each seed':<22} {'tokens':>6}",
    ]
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["setting"], row["value"]), []).append(row)
    for (method, setting, value), members in groups.items():
        over = "  ".join(
            f"{float(row['over_sft']):+.3f}±{float(row['over_sft_standard_error']):.3f}"
            for row in members
            if row["over_sft"]
        )
        over = over or f"(gold {float(members[0]['gold']):.3f} ± {float(members[0]['gold_standard_error']):.3f})"
        kl = "  ".join(f"{float(row['kl_nats']):.2f}" for row in members)
        tokens = fmean(float(row["tokens"]) for row in members)
        name = f"{setting} = {value}" if setting else "where all begin"
        lines.append(f"{method.upper():<5} {name:<22} {over:<40} {kl:<22} {tokens:>6.1f}")
    return lines
