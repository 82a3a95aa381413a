"""Work in steps: it tells how far it is, and where it is ended in the middle nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.screens.furnished_workspace import ARENA, PAIRS, furnish
from workbench.dataset_list import list_data
from workbench.dataset_store import add_dataset, open_dataset
from workbench.pair_sets import open_pairs, pairs_from_dataset
from workbench.preferences import freeze
from workbench.rule_annotator import judge_by_rule
from workbench.run_launch import LaunchRequest, create_run, plan_run
from workbench.steps import Steps
from workbench.workspace import Workspace


class Enough(Exception):
    """The person has had enough."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return furnish(tmp_path_factory.mktemp("steps"))


def files_of(workspace: Workspace) -> dict[str, bytes]:
    """Everything in a workspace but the empty folders."""
    return {str(path): path.read_bytes() for path in sorted(workspace.root.rglob("*")) if path.is_file()}


def verify(workspace: Workspace, progress: Any) -> None:
    listed = next(one for one in list_data(workspace)[0] if one.name == "answers")
    listed.verify(workspace, progress)


def start(workspace: Workspace, progress: Any) -> None:
    plan = plan_run(workspace, LaunchRequest("sft", "sample", ("demonstrations",), device="cpu"), quiet=True)
    create_run(plan, progress=progress)


def score(prompt: str, answer: str, **_: Any) -> Any:
    return type("Score", (), {"total": float(len(answer))})


WORK: dict[str, tuple[int, Callable[[Workspace, Any], object]]] = {
    "making pairs": (
        40, lambda ws, told: pairs_from_dataset(ws, "new", open_dataset(ws, "answers"), progress=told)
    ),
    "freezing": (80, lambda ws, told: freeze(ws, PAIRS, "new", progress=told)),
    "the rule": (40, lambda ws, told: judge_by_rule(open_pairs(ws, PAIRS), score=score, progress=told)),
    "the rule on an arena": (
        4, lambda ws, told: judge_by_rule(open_pairs(ws, ARENA, "arena"), score=score, progress=told)
    ),
    "starting a run": (0, start),
}  # fmt: skip
"""What → (steps in all, 0 where that is not known, how it is done)."""


@pytest.mark.parametrize("what", list(WORK))
def test_ended_in_the_middle_it_leaves_nothing(workspace: Workspace, what: str) -> None:
    total, work = WORK[what]
    told: list[tuple[int, int]] = []
    last = total or 40

    def until_the_last(done: int, of: int) -> None:
        told.append((done, of))
        if done == last:
            raise Enough

    before = files_of(workspace)
    with pytest.raises(Enough):
        work(workspace, until_the_last)
    assert told == [(done, total) for done in range(1, last + 1)]
    assert files_of(workspace) == before


def test_hashing_tells_its_bytes_and_can_be_ended(workspace: Workspace) -> None:
    told: list[tuple[int, int]] = []
    verify(workspace, lambda done, total: told.append((done, total)))
    size = open_dataset(workspace, "answers").source_path().stat().st_size
    assert told[-1] == (size, size)

    def enough(*_: int) -> None:
        raise Enough

    with pytest.raises(Enough):
        verify(workspace, enough)


def test_adding_asks_while_it_hashes(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    before = files_of(workspace)

    def enough(rows: int) -> None:
        assert rows == 0  # none is read before the file is hashed
        raise Enough

    with pytest.raises(Enough):
        add_dataset(workspace, tmp_path / "new.jsonl", "new", progress=enough)
    assert files_of(workspace) == before


def test_steps_go_on_over_several_passes_and_never_beyond_their_number() -> None:
    told: list[tuple[int, int]] = []
    steps = Steps(3, lambda *far: told.append(far))
    assert list(steps.over("ab")) == ["a", "b"]
    assert list(steps.over("cd")) == ["c", "d"]
    assert told == [(1, 3), (2, 3), (3, 3), (4, 4)]
