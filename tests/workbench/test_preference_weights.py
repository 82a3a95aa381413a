"""Weights of preference rows, from the verdicts of several people to the loss that is minimised."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.engine.test_training_runs import run
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.preference_rule import FreezeRule
from workbench.preferences import freeze
from workbench.run_launch import LaunchRequest, create_run, plan_run
from workbench.workspace import Workspace

SETTINGS = ("train.steps=1", "train.batch_size=8", "train.threads=1", "probe.prompts=0")
OF_METHOD = {"simpo": ("simpo.gamma=0",), "reward": ()}


@pytest.fixture
def judged(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """One pair, of which two people prefer a and one prefers b; frozen as "each" vote and as the "majority"."""
    monkeypatch.setenv("PATH", str(tmp_path))
    pairs = create_pairs(workspace, "p", [CandidatePair("My wheel wobbles.", "Bring it in.", "No.")], {"made": "here"})
    (pair,) = pairs.pairs()
    for who, verdict in (("alice", "a"), ("bob", "a"), ("carol", "b")):
        with pairs.journal(who) as journal:
            journal.append_many([journal.prepare(pair.id, verdict, origin="typed")])  # type: ignore[arg-type]
    for overlap in ("each", "majority"):
        freeze(workspace, "p", overlap, FreezeRule(overlap=overlap, eval_share=0))  # type: ignore[arg-type]
    return workspace


@pytest.mark.parametrize("method", OF_METHOD)
def test_shares_of_the_votes_weigh_the_loss(judged: Workspace, method: str) -> None:
    """With x the difference of the scores the loss of a over b is softplus(-x), and that of b over a softplus(x)."""
    settings = (*SETTINGS, *OF_METHOD[method])
    losses = {}
    for data in ("each", "majority"):
        request = LaunchRequest(method, "sample", (data,), settings=settings, device="cpu")
        made = create_run(plan_run(judged, request, quiet=True))
        rows = [json.loads(line) for line in (made.folder.data / "train.jsonl").read_text().splitlines()]
        assert sorted(row["weight"] for row in rows) == ([1 / 3, 2 / 3] if data == "each" else [1.0])
        losses[data] = run(made.folder)[1]["loss"]
    a_over_b = losses["majority"]
    x = -math.log(math.expm1(a_over_b))
    b_over_a = math.log1p(math.exp(x))
    assert losses["each"] == pytest.approx(2 / 3 * a_over_b + 1 / 3 * b_over_a, rel=1e-5)
    # Without the weights it would be their mean, which is another number.
    assert abs(losses["each"] - (a_over_b + b_over_a) / 2) > 1e-3
