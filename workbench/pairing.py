"""Which answers to a prompt become a pair: one from each, all with all, or the best with the worst.

Owns the rule. Invariants: two equal answers make no pair, and no two pairs of a prompt have the same two answers; what
came of a prompt is the same for the same answers. Refuses to know who judges, and where answers come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal, NamedTuple, get_args

from workbench.errors import UsageError
from workbench.evaluation import EvaluationJob, evaluate
from workbench.generation import Answer
from workbench.model_names import ResolvedModel

Pairing = Literal["each", "all", "best-worst"]
PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)
WORDS: dict[Pairing, str] = {
    "each": "one from each model; of one model two by two",
    "all": "every answer with every other",
    "best-worst": "the best with the worst, by a reward model",
}


class Candidate(NamedTuple):
    """One answer to a prompt, and whose it is."""

    answer: Answer
    source: str
    reward: float = math.nan
    """What a reward model gives to it; NaN where it was not measured."""


def couples(candidates: Sequence[Sequence[Candidate]], pairing: Pairing) -> Iterator[tuple[Candidate, Candidate]]:
    """The couples of one prompt; `candidates` are each model's. Equal answers may stand in a couple of "each" alone."""
    if pairing == "each":
        yield from _of_each(candidates)
        return
    different: dict[str, Candidate] = {}
    for one in (one for of_model in candidates for one in of_model):
        different.setdefault(one.answer.completion.strip(), one)
    if pairing == "all":
        yield from combinations(different.values(), 2)
        return
    measured = sorted((one for one in different.values() if not math.isnan(one.reward)), key=lambda one: one.reward)
    if len(measured) > 1 and measured[0].reward < measured[-1].reward:
        yield measured[-1], measured[0]


def rewards_of(model: ResolvedModel, rows: Sequence[tuple[object, object]], device: str, threads: int) -> list[float]:
    """What a reward model gives to each (prompt, completion); NaN for what it cannot measure."""
    require_reward_model(model)
    asked = [{"id": str(number), "prompt": prompt, "completion": text} for number, (prompt, text) in enumerate(rows)]
    [measured] = evaluate([EvaluationJob(model, asked, "score", device, threads)], quiet=True)
    return [measured.rows.get(str(number), {}).get("reward", math.nan) for number in range(len(rows))]


def require_reward_model(model: ResolvedModel | None) -> ResolvedModel:
    """Raises UsageError where there is none, or where it is another kind of model."""
    if model is None:
        raise UsageError("pairs of the best and the worst answer need a reward model to say which: --reward-model M")
    if not model.is_reward_model:
        raise UsageError(f"{model.source} is no reward model: --reward-model takes a run of `workbench train reward`")
    return model


def _of_each(candidates: Sequence[Sequence[Candidate]]) -> Iterator[tuple[Candidate, Candidate]]:
    if len(candidates) == 1:
        mine = candidates[0]
        yield from ((mine[i], mine[i + 1]) for i in range(0, len(mine) - 1, 2))
    else:
        yield from zip(candidates[0], candidates[1], strict=True)
