"""Examples on the disk read back as they were written, and a store that is not whole is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.data.example_store import (
    MANIFEST,
    StoreWriter,
    mask_of,
    open_store,
    runs_of,
    taken_from,
    verify_store,
    weighted_lengths,
)
from engine.data.examples import PreferenceExample
from engine.data.sft_examples import SftExample
from engine.errors import DataError

SFT = [
    SftExample("a", (1, 2, 3, 4), (False, False, True, True)),
    SftExample("é", (70_000,), (True,)),
    SftExample("", (5, 6, 7), (True, False, True)),
]
PAIRS = [
    PreferenceExample("p", (1, 2), (3,), (4, 5, 6), 0.5, None, "g"),
    PreferenceExample("q", (9,), (8, 7), (6,), 1.0, -0.25, "h"),
]


def stored(folder: Path, kind: type, rows: list[list[object]]) -> Path:
    folder.mkdir()
    writer = StoreWriter(folder, kind)
    for row in rows:
        writer.add_row(row)
    writer.finish({"dropped": {"x": 2}})
    return folder


def test_every_kind_of_field_comes_back(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Everything:
        ids: tuple[int, ...]
        mask: tuple[bool, ...]
        name: str
        count: int
        good: bool
        weight: float
        margin: float | None

    # The class is local to this test, so its annotations are resolved by hand.
    Everything.__annotations__ = {
        "ids": tuple[int, ...], "mask": tuple[bool, ...], "name": str, "count": int, "good": bool, "weight": float,
        "margin": float | None,
    }  # fmt: skip
    written = [Everything((), (), "", -(2**40), True, 0.1, None), Everything((1,), (True,), "ü", 3, False, 2.0, 0.0)]
    examples, facts = open_store(stored(tmp_path / "s", Everything, [written]), Everything)
    assert list(examples) == written
    assert facts == {"dropped": {"x": 2}}


def test_lengths_slices_and_choices_need_no_example(tmp_path: Path) -> None:
    examples, _ = open_store(stored(tmp_path / "s", PreferenceExample, [PAIRS[:1], [], PAIRS[1:]]), PreferenceExample)
    assert examples.rows().tolist() == [0, 2]
    weights = {"prompt": 2, "chosen": 1, "rejected": 1}
    # 2*2 + 1 + 3 and 2*1 + 2 + 1
    assert weighted_lengths(examples, weights) == weighted_lengths(PAIRS, weights) == [8, 5]
    assert list(examples[1:]) == PAIRS[1:]
    assert examples[-1] == PAIRS[1]
    backwards = taken_from(examples, [1, 0])
    assert list(backwards) == taken_from(PAIRS, [1, 0]) == PAIRS[::-1]
    assert weighted_lengths(backwards, weights) == [5, 8]
    with pytest.raises(IndexError):
        examples[2]


def test_numpy_reads_the_files_without_pickle(tmp_path: Path) -> None:
    store = stored(tmp_path / "s", SftExample, [SFT])
    assert np.load(store / "ids.values.npy", allow_pickle=False).tolist() == [1, 2, 3, 4, 70_000, 5, 6, 7]
    assert np.load(store / "ids.starts.npy", allow_pickle=False).tolist() == [0, 4, 5, 8]
    assert list(open_store(store, SftExample)[0]) == SFT


@pytest.mark.parametrize("mask", [(), (True,), (False,), (True, True, False), (False, True, False, True)])
def test_runs_are_the_mask(mask: tuple[bool, ...]) -> None:
    assert mask_of(runs_of(mask)) == mask


class TestAStoreThatIsNotWhole:
    def test_cut_short(self, tmp_path: Path) -> None:
        store = stored(tmp_path / "s", SftExample, [SFT])
        file = store / "ids.values.npy"
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(DataError, match=r"ids\.values\.npy: not a whole array"):
            open_store(store, SftExample)

    def test_altered_in_place(self, tmp_path: Path) -> None:
        store = stored(tmp_path / "s", SftExample, [SFT])
        file = store / "ids.values.npy"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        open_store(store, SftExample)  # a look at the sizes does not see it
        with pytest.raises(DataError, match="sha256 differs"):
            verify_store(store)

    def test_of_another_kind(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds SftExample examples"):
            open_store(stored(tmp_path / "s", SftExample, [SFT]), PreferenceExample)

    def test_without_a_manifest(self, tmp_path: Path) -> None:
        store = stored(tmp_path / "s", SftExample, [SFT])
        (store / MANIFEST).unlink()
        with pytest.raises(DataError, match="no whole store"):
            open_store(store, SftExample)
