"""The reward-KL frontier is drawn as its rows say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.frontier import COLUMNS, SEEDS, SETTINGS, read_table, write_table
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


def test_a_start_that_lies_far_below_is_told() -> None:
    lines = draw([row("sft", 0.0, 0.80), row("dpo", 1.0, 0.96), row("ppo", 4.0, 0.97)]).splitlines()
    assert lines[0].endswith("S lies below, at 0.800)")
    assert lines[HEIGHT].startswith(" 0.960 │S")


TABLE = Path(__file__).parent / "benchmarks" / "frontier.csv"


def test_the_readme_shows_what_the_rows_say() -> None:
    """`python -m tests.benchmarks.frontier --draw --table tests/benchmarks/frontier.csv` prints the block."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    block = "\n".join(f"    {line}".rstrip() for line in draw(read_table(TABLE)).splitlines())
    assert block in readme


def test_every_point_names_its_run() -> None:
    rows = read_table(TABLE)
    runs = [one["run"] for one in rows]
    assert len(set(runs)) == len(rows) == 1 + len(SETTINGS) * 3 * len(SEEDS)
    assert all(f"-{one['method']}-frontier-{one['method']}" in one["run"] for one in rows)
    points = {(one["method"], one["setting"], float(one["value"]), int(one["seed"])) for one in rows[1:]}
    assert points == {
        (method, key, value, seed) for method, key, values in SETTINGS for value in values for seed in SEEDS
    }
