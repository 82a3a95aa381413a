"""The guide reads its step off the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workbench.run_folders import held, make_run
from workbench.guide_steps import ARENA, BLIND, BY_HAND, PAIRS, STEPS, find_step
from workbench.guided_demo import guide_request
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.preferences import freeze
from workbench.rule_annotator import ANNOTATOR as RULE
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return init(tmp_path / "ws")


def pairs_named(workspace: Workspace, name: str, kind: str = "pairs") -> PairSet:
    rows = [CandidatePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(30)]
    return create_pairs(workspace, name, rows, {}, kind=kind)  # type: ignore[arg-type]


def judge(pairs: PairSet, who: str, first: int, last: int) -> None:
    with pairs.journal(who) as journal:
        for pair in list(pairs.pairs())[first:last]:
            journal.append(pair.id, "a", origin="screen")


def test_the_steps_follow_what_is_there(workspace: Workspace) -> None:
    def step(*seen: str) -> tuple[int, str]:
        found = find_step(workspace, seen)
        return found.number, found.station

    pairs = pairs_named(workspace, PAIRS)
    make_run(workspace, "1124-sft-demo-abc", created="2026-11-24T10:00:00+00:00", checkpoints=(4,))
    make_run(workspace, "1124-sft-demo-not", created="2026-11-24T10:30:00+00:00", phase="stopped", step=0)
    assert step() == (1, "inspect")
    assert step("inspect") == (2, "label")
    judge(pairs, "me", 0, BY_HAND - 1)
    assert find_step(workspace, ()).title == "label 1 pair by hand"  # a verdict says that the data was looked at
    judge(pairs, "me", BY_HAND - 1, BY_HAND)
    assert step() == (3, "pairs")
    judge(pairs, RULE, BY_HAND, 30)
    assert step() == (4, "pairs")
    freeze(workspace, PAIRS, "preferences")
    assert step() == (5, "launch")
    request = guide_request(workspace)
    assert (request.method, request.model, request.data) == ("dpo", "run:1124-sft-demo-abc", ("preferences",))
    dpo = make_run(workspace, "1124-dpo-demo-abd", phase="running", created="2026-11-24T11:00:00+00:00")
    with held(dpo):
        assert step() == (6, "curves")
        assert find_step(workspace, ()).subject == dpo.path.name
    # Without its supervisor it is interrupted: nobody can wait for its end.
    assert step() == (6, "launch")
    assert "interrupted" in find_step(workspace, ()).why
    make_run(workspace, "1124-dpo-demo-abe", created="2026-11-24T12:00:00+00:00")
    assert step() == (7, "compare")
    arena = pairs_named(workspace, ARENA, "arena")
    assert step() == (8, "label")
    assert find_step(workspace, ()).subject == f"arena/{ARENA}"
    judge(arena, "me", 0, BLIND)
    end = find_step(workspace, ())
    assert end.done
    assert end.number == end.total == len(STEPS)


def test_nobody_is_sent_on_from_a_model_that_is_still_trained(workspace: Workspace) -> None:
    judge(pairs := pairs_named(workspace, PAIRS), "me", 0, BY_HAND)
    judge(pairs, RULE, BY_HAND, 30)
    freeze(workspace, PAIRS, "preferences")
    sft = make_run(workspace, "1124-sft-demo-abc", phase="running", step=20)
    with held(sft):
        found = find_step(workspace, ())
    assert "still being trained at step 20 of" in found.why
    assert found.here.startswith("wait until that is done")
    assert find_step(workspace, ()).here.startswith("everything is filled in")
