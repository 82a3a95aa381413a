"""Pairs from the answers of models: two answers of one model, or one each of two models, to the same prompts.

Owns how answers become candidates and what is recorded of where they came from. Invariant: everything that shaped the
answers (models with their hashes, sampling, prompts with theirs) is in the pair set's source. Two equal answers make no
pair; how many there were is kept by cluster, because a comparison counts them as ties.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from workbench.asking import ask
from workbench.canonical_rows import PromptRow, Tags, completion_for, group_of
from workbench.child_programs import Told
from workbench.comparison import cluster_of
from workbench.errors import UnreadableData, UsageError
from workbench.generation import Answer, Sampling
from workbench.label_form import LabelForm
from workbench.model_names import ResolvedModel
from workbench.pair_sets import CandidatePair, PairKind, PairSet, create_pairs
from workbench.pair_sharing import Sharing
from workbench.pairing import Candidate, Pairing, couples, require_reward_model, rewards_of
from workbench.prompt_source import PromptSource
from workbench.row_conversion import same_answer
from workbench.url_model import AnsweringModel
from workbench.workspace import Workspace, check_name


@dataclass(frozen=True)
class Answered:
    """The prompts that every model answered, and the answers."""

    prompts: Sequence[PromptRow]
    models: Sequence[AnsweringModel]
    answers: Sequence[Sequence[Answer]]
    """For each model, its answers in the order of prompts and samples."""
    sampling: Sampling
    source: dict[str, Any]
    """Where the prompts came from, how many were asked, and how many left a model no room to answer."""


def ask_models(
    asked: PromptSource,
    models: Sequence[AnsweringModel],
    sampling: Sampling,
    *,
    limit: int = 0,
    keep_in: Workspace | None = None,
    quiet: bool = False,
    progress: Told | None = None,
) -> Answered:
    """Let each model answer the prompts; `progress` may raise to end it.

    With `keep_in` each answer is kept there as it comes, and none that is there is asked for. Prompts that leave a
    model no room for an answer are left out for all models and counted.
    """
    require_writers(models)
    prompts = prompts_to_ask(asked, limit)
    found, _ = ask(models, prompts, sampling, keep_in=keep_in, quiet=quiet, progress=progress)
    return answered_by_all(asked, prompts, models, found, sampling)


def require_writers(models: Sequence[AnsweringModel]) -> None:
    """Raises UsageError for a model that scores answers and writes none."""
    for model in models:
        if model.is_reward_model:
            raise UsageError(f"{model.source} is a reward model; it scores answers, it does not write them")


def prompts_to_ask(asked: PromptSource, limit: int = 0) -> list[PromptRow]:
    """The first `limit` prompts (0: all). Raises UnreadableData where there are none."""
    prompts = list(islice(asked.prompts(), limit or None))
    if not prompts:
        raise UnreadableData(f"{asked.name} has no prompts: it holds texts alone.")
    return prompts


def answered_by_all(
    asked: PromptSource,
    prompts: Sequence[PromptRow],
    models: Sequence[AnsweringModel],
    found: Sequence[Sequence[Answer]],
    sampling: Sampling,
) -> Answered:
    """The prompts that every model answered; `found` holds each model's answers."""
    by_all = set.intersection(*({answer.prompt_id for answer in answers} for answers in found))
    source = {
        "dataset": asked.name,
        "sha256": asked.sha256,
        "asked": len(prompts),
        "too_long": sum(prompt["id"] not in by_all for prompt in prompts),
    }
    kept = [[answer for answer in answers if answer.prompt_id in by_all] for answers in found]
    return Answered([prompt for prompt in prompts if prompt["id"] in by_all], models, kept, sampling, source)


def pairs_from_models(
    workspace: Workspace,
    name: str,
    answered: Answered,
    *,
    kind: PairKind = "pairs",
    note: str = "",
    form: LabelForm | None = None,
    sharing: Sharing | None = None,
    calibration: Iterable[CandidatePair] = (),
    pairing: Pairing = "each",
    reward_model: ResolvedModel | None = None,
) -> PairSet:
    """Make a pair set (or an arena) of what models answered; `reward_model` says which is best for "best-worst"."""
    require_two_answers(answered.models, answered.sampling)
    candidates = list(_candidates(answered, pairing, reward_model))
    identical = Counter(_cluster(pair) for pair in candidates if same_answer(pair.a, pair.b))
    source: dict[str, Any] = {
        "prompts": answered.source,
        "models": [{"source": model.source, "sha256": model.sha256} for model in answered.models],
        "sampling": answered.sampling.recorded(),
        "identical": dict(identical),
        "pairing": pairing,
    }
    if reward_model is not None:
        source["reward_model"] = {"source": reward_model.source, "sha256": reward_model.sha256}
    return create_pairs(
        workspace, name, candidates, source, kind=kind, seed=answered.sampling.seed, note=note, form=form,
        sharing=sharing, calibration=calibration,
    )  # fmt: skip


def require_free_name(workspace: Workspace, name: str, kind: PairKind) -> None:
    """Raises before anything slow where the name cannot be taken."""
    check_name(name, "pair set" if kind == "pairs" else "arena")
    workspace.require_free(kind, name)


def require_two_answers(models: Sequence[AnsweringModel], sampling: Sampling) -> None:
    """Raises UsageError where these models and samples make no pairs."""
    if len(models) == 1 and sampling.samples < 2:
        raise UsageError("one model needs --samples 2 or more to make pairs; or name a second with --model2")
    if len(models) == 1 and sampling.temperature == 0:
        raise UsageError("one model at temperature 0 gives one answer; raise --temperature, or name --model2")
    if len(models) == 2 and models[0].source == models[1].source:
        raise UsageError(f"both models are {models[0].source}; name two different ones")


def _candidates(answered: Answered, pairing: Pairing, reward_model: ResolvedModel | None) -> Iterator[CandidatePair]:
    each = answered.sampling.samples
    of_models = [
        [Candidate(one, model.source) for one in found]
        for model, found in zip(answered.models, answered.answers, strict=True)
    ]
    if pairing == "best-worst":
        of_models = [_with_rewards(answered, mine, require_reward_model(reward_model)) for mine in of_models]
    for number, prompt in enumerate(answered.prompts):
        mine = [found[number * each : (number + 1) * each] for found in of_models]
        for first, second in couples(mine, pairing):
            yield _candidate(prompt, first.answer, second.answer, first.source, second.source)


def _with_rewards(answered: Answered, mine: Sequence[Candidate], model: ResolvedModel) -> list[Candidate]:
    """One model's answers, in the order of prompts and samples, with what a reward model gives to each."""
    prompts = [row["prompt"] for row in answered.prompts for _ in range(answered.sampling.samples)]
    rows = [(prompt, completion_for(prompt, one.answer.completion)) for prompt, one in zip(prompts, mine, strict=True)]
    rewards = rewards_of(model, rows, answered.sampling.device, answered.sampling.threads)
    return [one._replace(reward=reward) for one, reward in zip(mine, rewards, strict=True)]


def _candidate(prompt: PromptRow, first: Answer, second: Answer, source_a: str, source_b: str) -> CandidatePair:
    tags: Tags = dict(prompt["tags"])
    for side, answer in (("stopped_a", first), ("stopped_b", second)):
        if not answer.stopped:
            tags[side] = False
    asked = prompt["prompt"]
    a, b = completion_for(asked, first.completion), completion_for(asked, second.completion)
    return CandidatePair(asked, a, b, source_a, source_b, "", tags)


def _cluster(pair: CandidatePair) -> str:
    return cluster_of(pair.tags, group_of(pair.prompt))
