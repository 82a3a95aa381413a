"""Which pairs are hard: the margin by which a model, or the annotators so far, tell the two answers apart.

Owns where a margin comes from: a reward model's two scores, a policy's implicit reward against its reference (Rafailov
et al. 2023, section 4, without beta, which only scales it), or the votes so far. The order that follows is drawn by
`pair_sharing.sequence`, always with a share of random pairs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from workbench.errors import UsageError
from workbench.evaluation import EvaluationJob, evaluate, margins_of
from workbench.model_names import ResolvedModel
from workbench.pair_margins import write_margins
from workbench.pair_sets import PairSet

BY_VOTES = "votes"


def rank_by_model(
    pair_set: PairSet,
    model: ResolvedModel,
    reference: ResolvedModel | None = None,
    *,
    device: str = "auto",
    threads: int = 0,
    quiet: bool = False,
) -> tuple[int, dict[str, int]]:
    """Keep the margins a model gives; (pairs ranked, pairs that could not be measured, by reason).

    A reward model ranks alone; another model needs the `reference` that it was tuned from.
    """
    pair_set.workspace.require_writable()
    if model.is_reward_model and reference is not None:
        raise UsageError(f"{model.source} is a reward model, which ranks alone: leave --reference out.")
    if not model.is_reward_model and reference is None:
        raise UsageError(
            f"{model.source} is no reward model: its implicit reward needs --reference M, the model it was tuned from."
        )
    rows: list[dict[str, Any]] = [
        {"id": pair.id, "prompt": pair.prompt, "chosen": pair.a, "rejected": pair.b} for pair in pair_set.pairs()
    ]
    if reference is None:
        [measured] = evaluate([EvaluationJob(model, rows, "reward", device, threads)], quiet=quiet)
        margins, dropped = margins_of(measured), measured.dropped
    else:
        jobs = [EvaluationJob(one, rows, "logprob", device, threads) for one in (model, reference)]
        tuned, before = evaluate(jobs, quiet=quiet)
        base = margins_of(before)
        margins = {pair: value - base[pair] for pair, value in margins_of(tuned).items() if pair in base}
        dropped = tuned.dropped
    source = model.source + (f" against {reference.source}" if reference else "")
    write_margins(pair_set, margins, source)
    return len(margins), dict(dropped)


def rank_by_votes(pair_set: PairSet) -> int:
    """Keep how far the votes on each pair lean to one side, from -1 to 1; pairs that nobody judged have no margin.

    For more voices where people disagree: the pairs of an even vote come first.
    """
    pair_set.workspace.require_writable()
    votes: dict[str, Counter[str]] = {}
    for one in pair_set.judgments().first:
        if one.verdict != "skip":
            votes.setdefault(one.pair, Counter())[one.verdict] += 1
    margins = {pair: (said["a"] - said["b"]) / said.total() for pair, said in votes.items()}
    if not margins:
        raise UsageError(f"nobody has judged a pair of {pair_set.name} yet, so votes rank none. Name a --model.")
    write_margins(pair_set, margins, BY_VOTES)
    return len(margins)
