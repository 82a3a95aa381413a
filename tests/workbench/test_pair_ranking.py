"""Ranking pairs by how hard they are: by a reward model, an implicit reward, or the votes so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from workbench import pair_ranking
from workbench.cli import main
from workbench.errors import UsageError
from workbench.evaluation import EvaluationJob, Measured
from workbench.model_names import ResolvedModel
from workbench.pair_margins import read_margins
from workbench.pair_ranking import rank_by_model, rank_by_votes
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.pair_sharing import Sharing
from workbench.workspace import Workspace


class Reward(ResolvedModel):
    is_reward_model = True  # type: ignore[assignment]


REWARD, TUNED, BASE = (
    Reward("run:rm@9", Path("rm")), ResolvedModel("run:dpo@9", Path("dpo")), ResolvedModel("sample", Path("base")),
)  # fmt: skip


@pytest.fixture
def made(workspace: Workspace) -> PairSet:
    rows = [CandidatePair(f"q{n}", "yes " * (n + 1), "no") for n in range(4)]
    return create_pairs(workspace, "s", rows, {"dataset": "d"}, sharing=Sharing(next_pair="active"))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[EvaluationJob]:
    """A measurement that is the length of an answer, times two for the tuned model; q3 is too long to measure."""
    asked: list[EvaluationJob] = []

    def evaluate(wanted: Sequence[EvaluationJob], *, quiet: bool = False) -> list[Measured]:
        asked.extend(wanted)
        factor = {"run:rm@9": 1.0, "run:dpo@9": 2.0, "sample": 1.0}
        return [
            Measured(
                {
                    row["id"]: {side: factor[job.model.source] * len(row[side]) for side in ("chosen", "rejected")}
                    for row in job.rows
                    if row["prompt"] != "q3"
                },
                {"too long": 1},
            )
            for job in wanted
        ]

    monkeypatch.setattr(pair_ranking, "evaluate", evaluate)
    return asked


def lengths(made: PairSet) -> dict[str, float]:
    return {pair.id: float(len(pair.a) - len(pair.b)) for pair in made.pairs() if pair.prompt != "q3"}


def test_a_reward_model_ranks_by_its_difference(made: PairSet, jobs: list[EvaluationJob]) -> None:
    assert rank_by_model(made, REWARD) == (3, {"too long": 1})
    assert read_margins(made) == lengths(made)
    assert [job.kind for job in jobs] == ["reward"]


def test_an_implicit_reward_is_against_its_reference(made: PairSet, jobs: list[EvaluationJob]) -> None:
    assert rank_by_model(made, TUNED, BASE)[0] == 3
    assert read_margins(made) == lengths(made), "twice the length, less once"
    assert [(job.kind, job.model.source) for job in jobs] == [("logprob", "run:dpo@9"), ("logprob", "sample")]


def test_what_ranks_nothing_is_refused(made: PairSet) -> None:
    with pytest.raises(UsageError, match="needs --reference M"):
        rank_by_model(made, TUNED)
    with pytest.raises(UsageError, match="ranks alone"):
        rank_by_model(made, REWARD, BASE)
    with pytest.raises(UsageError, match="nobody has judged"):
        rank_by_votes(made)


def test_votes_rank_by_how_even_they_are(made: PairSet, workspace: Workspace) -> None:
    pairs = [pair.id for pair in made.pairs()]
    for who, verdicts in (("alice", "aab"), ("bob", "abb"), ("carol", "ab-")):
        with made.journal(who) as journal:
            for pair, verdict in zip(pairs, verdicts, strict=False):
                if verdict != "-":
                    journal.append(pair, verdict, origin="screen")  # type: ignore[arg-type]
    assert main(["pairs", "rank", "s", "--votes", "--workspace", str(workspace.root)]) == 0
    assert read_margins(made) == {pairs[0]: 1.0, pairs[1]: pytest.approx(-1 / 3), pairs[2]: -1.0}
