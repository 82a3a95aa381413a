"""How a set is shared out: what pairs.toml says, calibration pairs, and the draws."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from workbench.calibration_file import read_calibration
from workbench.cli import main
from workbench.errors import UnreadableData, UsageError, WorkbenchError
from workbench.pair_sets import CandidatePair, PairSet, create_pairs, open_pairs
from workbench.pair_sharing import (
    Sharing,
    calibration_order,
    calibration_rate,
    is_calibration_due,
    is_repeated,
    sequence,
)
from workbench.workspace import Workspace

PAIRS = [f"{number:04x}" for number in range(4000)]


def make(workspace: Workspace, sharing: Sharing | None = None, calibration: int = 0) -> PairSet:
    rows = [CandidatePair(f"q{n}", f"yes {n}", f"no {n}") for n in range(5)]
    keys = [CandidatePair(f"k{n}", f"right {n}", f"wrong {n}", imported="a") for n in range(calibration)]
    return create_pairs(workspace, "s", rows, {"dataset": "d"}, sharing=sharing, calibration=keys)


def test_a_set_says_how_it_is_shared_out(workspace: Workspace) -> None:
    sharing = Sharing(2, 0.1, "random")
    assert make(workspace, sharing).sharing == sharing
    assert open_pairs(workspace, "s").sharing == sharing


def test_a_set_that_says_nothing_is_for_everyone(workspace: Workspace) -> None:
    made = make(workspace)
    path = made.folder / "pairs.toml"
    path.write_text(path.read_text().partition("[sharing]")[0])
    assert open_pairs(workspace, "s").sharing == Sharing()


def test_a_damaged_table_is_named(workspace: Workspace) -> None:
    made = make(workspace)
    path = made.folder / "pairs.toml"
    path.write_text(path.read_text().replace("overlap = 0", "overlap = -1"))
    with pytest.raises(WorkbenchError, match=r"pairs.toml: \[sharing\]: overlap = -1"):
        open_pairs(workspace, "s").sharing  # noqa: B018


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overlap": -1}, "overlap = -1"),
        ({"repeat_share": 1.5}, "from 0 to 1"),
        ({"next_pair": "worst"}, "one of order, random, active"),
        ({"random_share": 0.0}, "without random pairs"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sharing(**fields)  # type: ignore[arg-type]


def test_calibration_pairs_are_no_pairs_of_the_set(workspace: Workspace) -> None:
    made = make(workspace, calibration=4)
    known = list(made.calibration())
    assert {(pair.a if pair.imported == "a" else pair.b).split()[0] for pair in known} == {"right"}
    assert {pair.id for pair in known}.isdisjoint(pair.id for pair in made.pairs())
    assert (len(known), made.info.rows, made.status().judged) == (4, 5, 0)
    with made.journal("alice") as journal:
        journal.append(known[0].id, "a", origin="screen", purpose="calibration")
        journal.append(next(made.pairs()).id, "b", origin="screen", repeat=1, purpose="repeat")
    status = made.status()
    assert (status.judged, status.open, status.unknown_pairs, status.verdicts) == (0, 5, 0, {})


def test_the_calibration_file(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(3)]
    data, keys = tmp_path / "d.jsonl", tmp_path / "keys.jsonl"
    data.write_bytes(b"".join(orjson.dumps({"prompt": f"p{n}", "a": "x", "b": "y"}) + b"\n" for n in range(3)))
    keys.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    where = ["--workspace", str(workspace.root)]
    assert main(["data", "add", str(data), "--name", "d", *where]) == 0
    shared = ["--overlap", "2", "--repeat-share", "0.1", "--calibration", str(keys)]
    assert main(["pairs", "make", "s", "--from", "d", *shared, *where]) == 0
    made = open_pairs(workspace, "s")
    assert (made.sharing.overlap, made.sharing.repeat_share, made.sharing.calibration_pairs) == (2, 0.1, 3)
    keys.write_bytes(keys.read_bytes() + b'{"prompt": "q", "chosen": "yes", "rejected": ""}\n')
    with pytest.raises(UnreadableData, match=r"keys\.jsonl, line 4"):
        list(read_calibration(keys))
    keys.write_bytes(orjson.dumps({"prompt": "q", "chosen": "yes", "rejected": "yes"}) + b"\n")
    with pytest.raises(UnreadableData, match="chosen equals rejected"):
        list(read_calibration(keys))
    with pytest.raises(UsageError, match="chosen is the right answer"):
        list(read_calibration(data))


def test_a_calibration_file_that_was_edited_is_refused(workspace: Workspace) -> None:
    made = make(workspace, calibration=2)
    (made.folder / "calibration.parquet").write_bytes(b"other")
    with pytest.raises(WorkbenchError, match="not the file that was made"):
        list(made.calibration())


def test_the_repeats_are_the_stated_share_and_differ_between_people() -> None:
    mine = [pair for pair in PAIRS if is_repeated(pair, "alice", 1, 0.1)]
    other = [pair for pair in PAIRS if is_repeated(pair, "bob", 1, 0.1)]
    assert len(mine) == pytest.approx(400, abs=3 * 19)  # three standard errors of a binomial
    assert mine != other
    assert not any(is_repeated(pair, "alice", 1, 0.0) for pair in PAIRS)


def test_calibration_comes_at_its_rate_in_an_order_of_each_person() -> None:
    due = sum(is_calibration_due(number, "alice", 1, 0.05) for number in range(4000))
    assert due == pytest.approx(200, abs=3 * 14)
    assert calibration_order(PAIRS[:9], "alice", 1) != calibration_order(PAIRS[:9], "bob", 1)
    assert (calibration_rate(1, 1000), calibration_rate(50, 50)) == (0.05, 0.5)


def test_in_order_and_random() -> None:
    assert list(sequence(PAIRS, Sharing(), 1).items()) == [(pair, "order") for pair in PAIRS]
    shuffled = sequence(PAIRS, Sharing(next_pair="random"), 1)
    assert (sorted(shuffled), set(shuffled.values())) == (PAIRS, {"random"})
    assert list(shuffled) != PAIRS
    assert list(shuffled) != list(sequence(PAIRS, Sharing(next_pair="random"), 2))


def test_active_puts_small_margins_first_and_its_random_part_is_no_choice_of_margins() -> None:
    margins = {pair: (number - 2000) / 2000 for number, pair in enumerate(PAIRS)}
    placed = sequence(PAIRS, Sharing(next_pair="active", random_share=0.25), 1, margins)
    assert sorted(placed) == PAIRS
    head = list(placed)[:800]
    chosen = [abs(margins[pair]) for pair in head if placed[pair] == "active"]
    drawn = [abs(margins[pair]) for pair in head if placed[pair] == "random"]
    assert chosen == sorted(chosen)
    assert len(drawn) == pytest.approx(200, abs=3 * 13)
    # The absolute margins are even over 0 to 1, so the mean of a fair draw is 1/2 within 3 / sqrt(12 n).
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=3 / (12 * len(drawn)) ** 0.5)
    assert set(sequence(PAIRS, Sharing(next_pair="active"), 1).values()) == {"random"}, "nothing has ranked them yet"
