"""The reward-KL frontier is drawn as its rows say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.frontier import COLUMNS, read_table, write_table
from tests.benchmarks.frontier_plot import HEIGHT, SHARED, WIDTH, draw


def row(method: str, kl: float, gold: float, **more: str) -> dict[str, str]:
    """A row of the table."""
    empty = dict.fromkeys(COLUMNS, "")
    figures = {"method": method, "kl_nats": str(kl), "gold": str(gold), "gold_standard_error": "0.01", "tokens": "20"}
    return {**empty, **figures, **more}


def test_points_lie_where_their_numbers_say() -> None:
    lines = draw([row("sft", 0.0, 0.80), row("dpo", 1.0, 0.90), row("ppo", 4.0, 1.0)]).splitlines()
    field = [line[8:].ljust(WIDTH) for line in lines[1 : HEIGHT + 1]]
    places = {mark: (r, line.index(mark)) for r, line in enumerate(field) for mark in "SDP" if mark in line}
    assert places["S"] == (HEIGHT - 1, 0)
    assert places["P"][0] == 0
    assert places["P"][1] >= WIDTH - 3
    # The root scale puts 1 nat halfway to 4, and the score halfway up.
    assert abs(places["D"][1] - places["P"][1] / 2) <= 1
    assert abs(places["D"][0] - (HEIGHT - 1) / 2) <= 1


def test_marks_in_one_cell_are_told() -> None:
    same = draw([row("sft", 0.0, 0.8), row("dpo", 1.0, 0.9), row("dpo", 1.0, 0.9), row("ppo", 4.0, 1.0)])
    assert sum(line.count("D") for line in same.splitlines()[1 : HEIGHT + 1]) == 1
    mixed = draw([row("sft", 0.0, 0.8), row("dpo", 1.0, 0.9), row("grpo", 1.0, 0.9), row("ppo", 4.0, 1.0)])
    assert any(SHARED in line for line in mixed.splitlines()[1 : HEIGHT + 1])


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [row("sft", 0.0, 0.8, run="1130-sft-x-abc"), row("dpo", 1.0, 0.9, value="0.1")]
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == rows
