"""The loop at a glance: counts, what is suggested, and that nothing is read twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workbench.run_folders import make_run
from workbench.dataset_store import add_dataset
from workbench.loop_overview import LoopReader, Overview
from workbench.pair_list import PairsReader
from workbench.pair_sets import CandidatePair, PairKind, PairSet, create_pairs
from workbench.preferences import freeze
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return init(tmp_path / "ws")


def look(workspace: Workspace) -> Overview:
    return LoopReader(workspace).look()


def holds(found: Overview) -> dict[str, str]:
    return {stop.name: stop.holds for stop in found.stops}


def words(found: Overview) -> list[str]:
    return [step.words for step in found.steps]


def some_pairs(workspace: Workspace, name: str, count: int = 4, kind: PairKind = "pairs", **source: object) -> PairSet:
    rows = [CandidatePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(count)]
    return create_pairs(workspace, name, rows, source, kind=kind)


def judge(pairs: PairSet, who: str, count: int) -> None:
    with pairs.journal(who) as journal:
        for pair in list(pairs.pairs())[:count]:
            journal.append(pair.id, "a", origin="screen")


def test_an_empty_workspace_wants_a_dataset(workspace: Workspace) -> None:
    found = look(workspace)
    assert set(holds(found).values()) == {"–"}
    assert [(step.words, step.station) for step in found.steps] == [("add a dataset", "add")]


def test_a_dataset_wants_looking_into(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n')
    add_dataset(workspace, file, "chat")
    found = look(workspace)
    assert holds(found)["data"] == "1"
    assert (found.steps[0].station, found.steps[0].subject) == ("inspect", "chat")


def test_open_pairs_are_named_with_who_labeled(workspace: Workspace) -> None:
    pairs = some_pairs(workspace, "support")
    judge(pairs, "alice", 2)
    judge(pairs, "bob", 1)
    found = look(workspace)
    assert holds(found)["labels"] == "2/4"  # alice and bob judged the same first pair
    assert "label 2 pairs of support (alice 2, bob 1)" in words(found)


def test_home_and_the_list_of_pairs_count_the_same_pairs_as_open(workspace: Workspace) -> None:
    """A pair that was skipped, by whomever, and judged by nobody is neither judged nor open."""
    pairs = some_pairs(workspace, "support")
    first, second, third, _ = (pair.id for pair in pairs.pairs())
    for who, pair, verdict in (("alice", first, "a"), ("bob", first, "skip"), ("bob", second, "skip")):
        with pairs.journal(who) as journal:
            journal.append(pair, verdict, origin="screen")  # type: ignore[arg-type]
    (listed,) = PairsReader(workspace, "alice").read()
    assert (listed.judged, listed.open, pairs.status().open, pairs.status().skipped) == (1, 2, 2, 1)
    assert "label 2 pairs of support (alice 1)" in words(look(workspace))
    with pairs.journal("alice") as journal:
        journal.append(third, "skip", origin="screen")
    assert "label 1 pair of support (alice 1)" in words(look(workspace))


def test_verdicts_want_freezing_until_they_are_frozen(workspace: Workspace) -> None:
    pairs = some_pairs(workspace, "support", 12)
    judge(pairs, "alice", 11)
    assert "freeze 11 judged pairs of support into a preference set" in words(look(workspace))
    freeze(workspace, "support", "v1")
    after = words(look(workspace))
    assert not any("freeze" in one for one in after)
    assert "train on the preferences v1" in after
    judge(pairs, "bob", 1)  # one verdict more than was frozen
    assert any("freeze" in one for one in words(look(workspace)))


def test_what_went_wrong_comes_first(workspace: Workspace) -> None:
    make_run(workspace, "1124-sft-one-abc", created="2026-11-24T10:00:00+00:00")
    make_run(workspace, "1124-dpo-two-abd", phase="failed", created="2026-11-24T11:00:00+00:00")
    found = look(workspace)
    assert found.steps[0].urgent
    assert found.steps[0].words.startswith("1124-dpo-two-abd failed")
    assert "compare 1124-sft-one-abc with what you had" in words(found)
    assert [run.id for run in found.runs] == ["1124-dpo-two-abd", "1124-sft-one-abc"]


def test_a_failure_that_was_mended_is_not_named_again(workspace: Workspace) -> None:
    make_run(workspace, "1124-dpo-two-abc", phase="failed", created="2026-11-24T10:00:00+00:00")
    make_run(workspace, "1124-dpo-two-abd", created="2026-11-24T11:00:00+00:00")
    assert not any(step.urgent for step in look(workspace).steps)


def test_a_compared_run_is_not_suggested(workspace: Workspace) -> None:
    make_run(workspace, "1124-sft-one-abc")
    models = [{"source": "run:1124-sft-one-abc@4"}, {"source": "sample"}]
    arena = some_pairs(workspace, "versus", 3, "arena", models=models)
    found = look(workspace)
    assert not any("compare 1124" in one for one in words(found))
    assert "judge 3 pairs of the arena versus, blind" in words(found)
    judge(arena, "alice", 3)
    assert not any("arena" in one for one in words(look(workspace)))


def test_a_damaged_pair_set_hides_nothing(workspace: Workspace) -> None:
    some_pairs(workspace, "good")
    (some_pairs(workspace, "torn").folder / "pairs.toml").write_text("schema = ")
    found = look(workspace)
    assert "torn" in found.damaged[0]
    assert "label 4 pairs of good" in words(found)


def test_what_did_not_change_is_not_read_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench import loop_overview

    pairs = some_pairs(workspace, "support")
    reads: list[Path] = []
    real = loop_overview.read_judgments
    monkeypatch.setattr(loop_overview, "read_judgments", lambda folder: reads.append(folder) or real(folder))  # type: ignore[func-returns-value]
    reader = LoopReader(workspace)
    first, again = reader.look(), reader.look()
    assert first == again
    assert len(reads) == 1
    judge(pairs, "alice", 1)
    assert holds(reader.look())["labels"] == "1/4"
    assert len(reads) == 2
