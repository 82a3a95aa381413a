"""--data NAME[:WEIGHT]: what is read, and what is refused with what to write instead."""

from __future__ import annotations

import pytest

from engine.run.config import DataConfig
from workbench.data_weights import WeightedData, as_written, read_weighted, split_written
from workbench.errors import UsageError


def test_names_with_and_without_weights() -> None:
    assert read_weighted(["a", "b.c-d"]) == WeightedData(("a", "b.c-d"))
    assert read_weighted(["a:0.7", "b:3", "c:1e-2"]) == WeightedData(("a", "b", "c"), (0.7, 3.0, 0.01))
    assert read_weighted([]) == WeightedData()


def test_what_is_written_reads_back() -> None:
    for data in (WeightedData(("a", "b"), (1 / 3, 7.0)), WeightedData(("a", "b"))):
        config = DataConfig(names=data.names, weights=data.weights)
        assert read_weighted(as_written(config)) == data
    assert as_written(DataConfig(names=("a", "b"), weights=(0.7, 2.0))) == ("a:0.7", "b:2")


def test_one_line_holds_several() -> None:
    assert split_written(" a:0.7 b:0.3,c:1 , d:2 ") == ("a:0.7", "b:0.3", "c:1", "d:2")
    assert split_written(" ") == ()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (["a:0", "b:1"], "--data a:0: the weight must be a number above 0"),
        (["a:-1", "b:1"], "--data a:-1: the weight must be"),
        (["a:nan", "b:1"], "--data a:nan: the weight must be"),
        (["a:inf", "b:1"], "--data a:inf: the weight must be"),
        (["a:", "b:1"], "--data a:: expected NAME or NAME:WEIGHT"),
        (["a:much", "b:1"], "--data a:much: expected NAME or NAME:WEIGHT"),
        (["hf:org/x", "b"], "workbench data add"),
        (["a:b:1", "c:1"], "--data a:b:1: expected NAME or NAME:WEIGHT"),
        ([":1", "b:1"], "--data :1: expected NAME or NAME:WEIGHT"),
        (["a:1", "b", "c"], "--data b, c has no weight"),
        (["a:1", "a:2"], "--data a is given twice"),
        (["a", "a"], "--data a is given twice"),
        (["a:0.5"], "there is one source"),
    ],
)
def test_what_cannot_be_is_said_with_what_to_write(written: list[str], words: str) -> None:
    with pytest.raises(UsageError, match="--data") as caught:
        read_weighted(written)
    assert words in str(caught.value)
