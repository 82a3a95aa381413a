"""Claims: no pair is with more people than its overlap, and whoever dies lets go."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.benchmarks.annotators import campaign
from workbench import claims as claims_module
from workbench.claims import Claims, living_claims
from workbench.errors import WorkbenchError
from workbench.judgments import Journal, Showing

PAIRS = [f"{number:016x}" for number in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "judgments").mkdir()
    return tmp_path


def judge(folder: Path, who: str, pair: str, verdict: str = "a", origin: str = "screen") -> None:
    with Journal(folder / "judgments", who) as journal:
        journal.append(pair, verdict, origin=origin)  # type: ignore[arg-type]


def test_each_is_shown_the_first_pair_that_is_with_too_few(folder: Path) -> None:
    alice, bob, carol, dora = (Claims(folder, who, 2) for who in ("alice", "bob", "carol", "dora"))
    chosen = [one.choose(PAIRS) for one in (alice, bob, carol, dora)]
    assert chosen == [PAIRS[0], PAIRS[0], PAIRS[1], PAIRS[1]]
    assert {(one.annotator, one.pair) for one in living_claims(folder)} == set(
        zip(("alice", "bob", "carol", "dora"), chosen, strict=True)
    )
    judge(folder, "alice", PAIRS[0])
    assert alice.choose(PAIRS[1:]) == PAIRS[2], "0 is judged, 1 is with two others"
    assert carol.choose(PAIRS) == PAIRS[1], "0 is judged by alice and before bob"
    bob.close()
    assert carol.choose(PAIRS) == PAIRS[0], "bob left it unjudged"


def test_whoever_is_done_is_seen_as_done_and_undoing_opens_the_pair(folder: Path) -> None:
    with Journal(folder / "judgments", "bob") as bobs:
        alice, bob = Claims(folder, "alice", 1), Claims(folder, "bob", 1)
        assert bob.choose(PAIRS) == PAIRS[0]
        bobs.append(PAIRS[0], "b", origin="screen")
        assert bob.choose([]) == ""
        assert alice.choose(PAIRS) == PAIRS[1]
        assert alice.is_full(PAIRS[0])
        bobs.undo(Showing(PAIRS[0], "bob"))
        assert alice.choose(PAIRS) == PAIRS[0]
        assert bob.choose(PAIRS) == PAIRS[1]


@pytest.mark.parametrize(
    ("verdict", "origin"), [("skip", "screen"), ("a", "rule"), ("b", "imported")], ids=["skip", "rule", "imported"]
)
def test_what_fills_no_pair(folder: Path, verdict: str, origin: str) -> None:
    judge(folder, "bob", PAIRS[0], verdict, origin)
    assert Claims(folder, "alice", 1).choose(PAIRS) == PAIRS[0]


def test_repeats_and_calibration_fill_no_pair(folder: Path) -> None:
    with Journal(folder / "judgments", "bob") as journal:
        journal.append(PAIRS[0], "a", origin="screen", repeat=1, purpose="repeat")
        journal.append(PAIRS[1], "a", origin="screen", purpose="calibration")
    assert Claims(folder, "alice", 1).choose(PAIRS) == PAIRS[0]


def test_the_same_name_twice_is_told_and_shown_other_pairs(folder: Path) -> None:
    first = Claims(folder, "alice", 2)
    second = Claims(folder, "alice", 2)
    assert (first.is_elsewhere, second.is_elsewhere) == (False, True)
    assert first.choose(PAIRS) == PAIRS[0]
    assert second.choose(PAIRS) == PAIRS[1], "one person counts once, so a second look would be lost work"


def test_without_overlap_everyone_sees_everything(folder: Path) -> None:
    for who in ("alice", "bob"):
        judge(folder, who, PAIRS[0])
        assert Claims(folder, who, 0).choose(PAIRS) == PAIRS[0]


def test_a_torn_line_counts_when_it_is_whole(folder: Path) -> None:
    judge(folder, "bob", PAIRS[0])
    (path,) = (folder / "judgments").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    alice = Claims(folder, "alice", 1)
    assert alice.choose(PAIRS) == PAIRS[0]
    path.write_bytes(whole + b"{foreign\n" + b'{"a": 1}\n')
    assert alice.choose(PAIRS) == PAIRS[1]
    path.write_bytes(b"")  # a journal that was cut is read anew
    assert alice.choose(PAIRS) == PAIRS[0]


def test_the_dead_let_go(folder: Path) -> None:
    hears, says = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Claims(folder, "bob", 1).choose(PAIRS)
            os.write(says, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.read(hears, 1)
    os.close(hears)
    os.close(says)
    alice = Claims(folder, "alice", 1)
    assert alice.choose(PAIRS) == PAIRS[1]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert alice.choose(PAIRS) == PAIRS[0]
    assert sorted(path.name.partition(".")[0] for path in (folder / "claims").iterdir()) == ["alice", "turn"]


def test_a_stopped_program_that_holds_the_turn_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = Claims(folder, "alice", 1)
    monkeypatch.setattr(claims_module, "PATIENCE_S", 0.01)
    with open(folder / "claims" / "turn") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with pytest.raises(WorkbenchError, match="may be\\s+stopped"):
            alice.choose(PAIRS)
    assert alice.choose(PAIRS) == PAIRS[0]


def test_where_locks_do_not_exclude_the_claims_lie_on_this_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "excludes", lambda _: False)
    monkeypatch.setattr(claims_module, "host_lock_path", lambda path: folder / "host" / "claims.lock")
    (folder / "host").mkdir()
    alice = Claims(folder, "alice", 1)
    assert alice.this_host_only
    assert alice.choose(PAIRS) == PAIRS[0]
    assert Claims(folder, "bob", 1).choose(PAIRS) == PAIRS[1]
    assert list((folder / "claims").iterdir()) == []


def test_eight_annotators_and_kills(tmp_path: Path) -> None:
    """The checker shares no code with the store; `python -m tests.benchmarks.annotators` does much more of it."""
    found = campaign(tmp_path, 8, 8, 200, 2, random.Random(7))
    assert found.problems == []
    assert (found.pairs_full, found.most_at_once) == (200, 2)
    assert 1 <= found.kills <= 8  # a slow machine may have come to the end of the pairs before the last of them


def test_a_claim_whose_set_is_gone_is_let_go(folder: Path) -> None:
    claims = Claims(folder, "alice", 2)
    held = len(os.listdir("/proc/self/fd"))
    shutil.rmtree(folder)
    claims.close()
    assert len(os.listdir("/proc/self/fd")) == held - 1
