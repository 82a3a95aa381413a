"""Sources as stretches of a run's examples: where they begin, what a part of them is, and what they are called."""

from __future__ import annotations

from pathlib import Path

from engine.data.example_store import StoreWriter, open_store
from engine.data.sft_examples import SftExample
from engine.data.sources import spread, stretches
from engine.run.metric_names import source_labels


def test_dropped_and_split_rows_move_where_a_source_begins(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, SftExample)
    for row, examples in enumerate([1, 0, 2, 1, 0]):
        writer.add_row([SftExample(str(row), (1, 2), (False, True))] * examples)
    writer.finish({})
    stored, _ = open_store(tmp_path, SftExample)
    assert stretches([2, 2, 1], stored) == [range(1), range(1, 4), range(4, 4)]
    assert stretches([1, 3, 1], stored) == [range(1), range(1, 4), range(4, 4)]
    assert stretches([5], stored) == [range(4)]


def test_a_part_of_all_is_a_part_of_each() -> None:
    parts = [range(60), range(60, 90), range(90, 91)]
    assert spread(parts, 1000) == list(range(91))
    some = spread(parts, 10)
    assert len(some) == 10
    assert [sum(index in part for index in some) for part in parts] == [6, 3, 1]
    assert some[:2] == [0, 1]
    assert spread(parts, 2) == [0, 60]
    assert spread([range(0), range(3)], 2) == [0, 1]


def test_labels_hold_nothing_that_a_terminal_or_a_metric_would_misread() -> None:
    assert source_labels(["a", "B.2_x-y", "a/b", "x\x1b[2J", "", "a" * 99]) == (
        "a", "B.2_x-y", "a_b", "x__2J", "_", "a" * 64,
    )  # fmt: skip
    assert source_labels(["a/b", "a b", "a_b"]) == ("a_b", "a_b-2", "a_b-3")
