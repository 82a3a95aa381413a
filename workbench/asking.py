"""Putting prompts to models, wherever they are, and keeping each answer as soon as it is there.

Owns the way from models and prompts to answers: what is kept is not asked again, models that are here answer in one
child process, block by block, and those behind a URL by requests. Invariant: an end in the middle, however it came,
loses at most the block that was being answered; the answers are the same as without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.canonical_rows import PromptRow
from workbench.child_programs import Told
from workbench.errors import WorkbenchError
from workbench.generation import Answer, GenerationJob, Sampling, generate
from workbench.kept_answers import AnswersSoFar, keep_answers, kept_answers
from workbench.model_names import ResolvedModel
from workbench.terminal_output import Progress
from workbench.url_answers import Limits, ask_url
from workbench.url_model import AnsweringModel, UrlModel
from workbench.workspace import Workspace

_Tell = Callable[[float, str], None]
"""Told how many answers are there beyond those that are kept, and whose."""
BLOCK = 256
"""Answers of a block: enough to fill a batch, few enough to lose."""


@dataclass
class _Asked:
    """One model that is being asked."""

    model: AnsweringModel
    place: int
    so_far: AnswersSoFar


def ask(
    models: Sequence[AnsweringModel],
    prompts: Sequence[PromptRow],
    sampling: Sampling,
    *,
    keep_in: Workspace | None = None,
    quiet: bool = False,
    progress: Told | None = None,
    limits: Limits | None = None,
) -> tuple[list[list[Answer]], int]:
    """(each model's answers in the order of prompts and samples, how many models were asked now).

    A prompt has all its answers or none. `progress` is told how many answers are there, of how many, and whose; it may
    raise to end it. With `keep_in` answers lie in that workspace, and what is there is not asked again. Raises
    WorkbenchError where a model has no answer to any prompt.
    """
    found = [kept_answers(keep_in, model, prompts, sampling) if keep_in else [] for model in models]
    asked = [
        _Asked(model, place, AnswersSoFar(keep_in, model, prompts, sampling))
        for place, model in enumerate(models)
        if not found[place]
    ]
    shown = Progress("answering", quiet=quiet)
    total = len(asked) * len(prompts) * sampling.samples

    def tell(more: float, words: str) -> None:
        done = sum(len(one.so_far) for one in asked) + more
        shown.update(done, total, words)
        if progress is not None:
            progress(min(done, total), total, words)

    try:
        _ask_here([one for one in asked if isinstance(one.model, ResolvedModel)], prompts, sampling, tell)
        for one in asked:
            if isinstance(one.model, UrlModel):
                _ask_there(one, one.model, prompts, sampling, tell, limits)
    except WorkbenchError as error:
        if keep_in and (kept := sum(len(one.so_far) for one in asked)):
            raise WorkbenchError(f"{error} {kept:,} answers are kept: the same again goes on from there.") from error
        raise
    finally:
        shown.close()
    for one in asked:
        found[one.place] = answers = _all_of(one, prompts, sampling)
        if keep_in:
            keep_answers(keep_in, one.model, prompts, sampling, answers)
    return found, len(asked)


def _ask_here(asked: Sequence[_Asked], prompts: Sequence[PromptRow], sampling: Sampling, tell: _Tell) -> None:
    """The models of this machine, in one child: a job for each block of prompts that is not answered yet."""
    jobs: list[GenerationJob] = []
    of_jobs: list[_Asked] = []
    each = max(1, BLOCK // sampling.samples)
    for one in asked:
        assert isinstance(one.model, ResolvedModel)
        missing = [row for row in prompts if not one.so_far.is_whole(row["id"])]
        for start in range(0, len(missing), each):
            jobs.append(GenerationJob(one.model, missing[start : start + each], sampling))
            of_jobs.append(one)
    if not jobs:
        return
    ready = [0]

    def finished(number: int, answers: list[Answer]) -> None:
        of_jobs[number].so_far.add(answers)
        ready[0] += len(jobs[number].prompts) * sampling.samples

    generate(
        jobs,
        quiet=True,
        progress=lambda done, total, words: tell(max(0.0, done - ready[0]), words),
        finished=finished,
    )


def _ask_there(
    one: _Asked,
    model: UrlModel,
    prompts: Sequence[PromptRow],
    sampling: Sampling,
    tell: _Tell,
    limits: Limits | None,
) -> None:
    ask_url(
        model,
        prompts,
        sampling,
        has=one.so_far.has,
        take=lambda answer: one.so_far.add([answer]),
        look=lambda: tell(0, model.source),
        limits=limits,
    )


def _all_of(one: _Asked, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Answer]:
    answers = one.so_far.in_order()
    if not answers:
        raise WorkbenchError(
            f"{one.model.source}: none of {len(prompts)} prompts was answered: they leave no room for "
            f"{sampling.max_new_tokens} tokens in the model's window; lower --max-new-tokens"
        )
    return answers
