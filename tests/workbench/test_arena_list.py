"""A win rate in words: better only where the interval says so, synthetic where a rule judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.arena_list import ArenaReader, free_arena_name, rule_knows, state_of, verdict_words
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.workspace import Workspace, name_problem, read_toml, write_toml


def make_arena(workspace: Workspace, name: str, pairs: int = 4, identical: int = 0) -> PairSet:
    candidates = [
        CandidatePair(f"q{n}", f"good {n}", f"bad {n}", "run:1124-dpo-x-abc@4", "sample") for n in range(pairs)
    ]
    source: dict[str, Any] = {
        "models": [{"source": "run:1124-dpo-x-abc@4", "sha256": "1"}, {"source": "sample", "sha256": "2"}],
        "identical": {"group x": identical} if identical else {},
    }
    return create_pairs(workspace, name, candidates, source, kind="arena")


def judge(arena: PairSet, who: str, first_wins: int, origin: Any = "screen") -> None:
    with arena.journal(who) as journal:
        for number, pair in enumerate(arena.pairs()):
            a_is_first = pair.source_a != "sample"
            journal.append(pair.id, "a" if (number < first_wins) == a_is_first else "b", origin=origin)


def said(rate: float | None, low: float, high: float, *origins: str) -> dict[str, Any]:
    return {
        "models": ["run:1124-dpo-x-abc@4", "sample"],
        "origins": list(origins or ("screen",)),
        "win_rate": {"rate": rate, "low": low, "high": high, "pairs": 64},
    }


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (said(0.68, 0.58, 0.77), "dpo is better: 0.68, 95 % interval 0.58 to 0.77 (64 pairs)"),
        (said(0.32, 0.23, 0.42), "sample is better: 0.68, 95 % interval 0.58 to 0.77 (64 pairs)"),
        (said(0.55, 0.45, 0.66), "no difference can be told yet: dpo 0.55, 95 % interval 0.45 to 0.66 (64 pairs)"),
        (said(0.45, 0.34, 0.55), "no difference can be told yet: sample 0.55, 95 % interval 0.45 to 0.66 (64 pairs)"),
        (said(0.60, 0.50, 0.70), "no difference can be told yet: dpo 0.60, 95 % interval 0.50 to 0.70 (64 pairs)"),
        (said(None, 0, 1), "nothing is judged yet"),
    ],
)
def test_a_win_rate_in_words(report: dict[str, Any], words: str) -> None:
    assert verdict_words(report) == words


def test_verdicts_of_the_rule_alone_are_called_synthetic() -> None:
    assert verdict_words(said(0.68, 0.58, 0.77, "rule")).endswith("(64 pairs; synthetic: judged by the sample rule)")
    assert verdict_words(said(0.68, 0.58, 0.77, "rule", "screen")).endswith("(64 pairs; some by the sample rule)")


def test_an_arena_says_how_far_it_is(workspace: Workspace) -> None:
    arena = make_arena(workspace, "a", pairs=40, identical=2)
    before = state_of(workspace, "a")
    assert (before.judged, before.open, before.words, before.decided) == (0, 40, "nothing is judged yet", False)
    judge(arena, "eva", first_wins=40)
    after = state_of(workspace, "a")
    assert (after.judged, after.open, after.identical, after.judges) == (40, 0, 2, "eva (40)")
    assert after.words.startswith("dpo is better: 0.98")
    assert after.decided


def test_arenas_are_read_again_only_where_a_file_changed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_arena(workspace, "a")
    reader = ArenaReader(workspace)
    [before] = reader.read()
    monkeypatch.setattr(PairSet, "pairs", lambda self: pytest.fail("the arena was read again"))
    assert reader.read() == (before,)
    monkeypatch.undo()
    judge(first, "eva", first_wins=4)
    [after] = reader.read()
    assert after.judged == 4


def test_a_damaged_arena_says_why_and_the_others_are_listed(workspace: Workspace) -> None:
    make_arena(workspace, "a")
    make_arena(workspace, "b")
    (workspace.arena / "a" / "pairs.parquet").write_bytes(b"torn")
    states = {state.name: state for state in ArenaReader(workspace).read()}
    assert states["a"].damaged
    assert "not the file that was made" in states["a"].words
    assert not states["b"].damaged
    description = workspace.arena / "b" / "pairs.toml"
    content = read_toml(description)
    write_toml(description, {**content, "source": {**content["source"], "identical": 3}})
    assert "pairs.toml: damaged" in state_of(workspace, "b").words


def test_names_for_arenas(workspace: Workspace) -> None:
    assert free_arena_name(workspace, "dpo", "../<x>") == "dpo-against-x"
    make_arena(workspace, "dpo-against-x")
    assert free_arena_name(workspace, "dpo", "x") == "dpo-against-x-2"
    assert "taken" in name_problem(workspace, "arena", "dpo-against-x")
    assert "cannot name" in name_problem(workspace, "arena", "../x")
    assert name_problem(workspace, "arena", "y") == ""


def test_the_rule_knows_the_sample_data_alone(workspace: Workspace, tmp_path: Path) -> None:
    from sample_data import ROOT
    from workbench.dataset_store import add_dataset

    add_dataset(workspace, ROOT / "data" / "prompts_heldout.jsonl", "held")
    (tmp_path / "mine.jsonl").write_text('{"prompt": "q"}\n')
    add_dataset(workspace, tmp_path / "mine.jsonl")
    for name, known in (("held", True), ("mine", False)):
        source = {"prompts": {"dataset": name}, "models": []}
        made = create_pairs(workspace, f"of-{name}", [CandidatePair("q", "a", "b")], source, kind="arena")
        assert rule_knows(made) is known
        assert state_of(workspace, made.name).damaged  # it was not made from two models
