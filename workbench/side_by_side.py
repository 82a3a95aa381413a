"""The same prompts answered by two to four models, to be read side by side and sent on as a blind arena.

Owns what is compared. No answer is asked for twice: not when a comparison is opened again, and not for the models it
shares with another one (`kept_answers`). blobs/compare.json holds what was compared last.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import orjson

from engine.errors import EngineError
from engine.run.durable_files import write_atomically
from workbench.asking import ask
from workbench.child_programs import Told
from workbench.errors import UsageError, WorkbenchError, explain_os_errors
from workbench.generation import Answer, Sampling
from workbench.known_models import KnownModel, known_models
from workbench.model_names import checkpoint_model
from workbench.pair_generation import Answered, answered_by_all, pairs_from_models, prompts_to_ask, require_writers
from workbench.pair_sets import PairSet
from workbench.prompt_source import find_prompts
from workbench.row_conversion import same_answer
from workbench.run_list import find_run
from workbench.url_model import AnsweringModel, answering_model
from workbench.workspace import Workspace

SCHEMA = 1
FEWEST, MOST = 2, 4
"""Models of one comparison."""
MOST_PROMPTS = 1000
_LAST = "compare.json"


@dataclass(frozen=True)
class Setup:
    """What a person wants compared."""

    models: tuple[str, ...] = ()
    """As they are written after --model."""
    prompts: str = ""
    """A dataset, or a preference set (its held-out prompts)."""
    count: int = 8
    """The first prompts of it."""
    temperature: float = 1.0
    max_new_tokens: int = 256
    seed: int = 1

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed)

    def problem(self) -> str:
        """Why this cannot be asked yet; empty where it can."""
        if not FEWEST <= len(self.models) <= MOST:
            picked = {0: "no model is", 1: "1 model is"}.get(len(self.models), f"{len(self.models)} models are")
            return f"{picked} picked; a comparison has {FEWEST} to {MOST}"
        if not self.prompts:
            return "no prompts are picked"
        if not 1 <= self.count <= MOST_PROMPTS:
            return f"{self.count} prompts: expected 1 to {MOST_PROMPTS:,}"
        return ""


@dataclass(frozen=True)
class Comparison:
    """What the models answered."""

    workspace: Workspace
    setup: Setup
    answered: Answered
    asked_now: int
    """Models that were asked now; the answers of the others were kept from before."""

    @property
    def names(self) -> list[str]:
        """The models, as short as they can be told apart."""
        return short_names([model.source for model in self.answered.models])

    def answers_to(self, number: int) -> list[Answer]:
        """Each model's answer to one prompt, in the order of the models."""
        return [answers[number] for answers in self.answered.answers]

    def all_agree(self, number: int) -> bool:
        """Whether every model gave the same answer to a prompt."""
        first, *others = self.answers_to(number)
        return all(same_answer(first.completion, other.completion) for other in others)

    def differing(self, first: int, second: int) -> int:
        """To how many prompts two models gave different answers: the pairs that an arena of them would have."""
        one, other = self.answered.answers[first], self.answered.answers[second]
        return sum(not same_answer(a.completion, b.completion) for a, b in zip(one, other, strict=True))

    def as_arena(self, name: str, first: int, second: int) -> PairSet:
        """A blind arena of two of the models, made of the answers that are here; nothing is generated."""
        chosen = (first, second)
        two = replace(
            self.answered,
            models=[self.answered.models[place] for place in chosen],
            answers=[self.answered.answers[place] for place in chosen],
        )
        return pairs_from_models(self.workspace, name, two, kind="arena")


@dataclass(frozen=True)
class PromptChoice:
    """Something that has prompts to ask."""

    name: str
    what: str
    rows: int


def compare(workspace: Workspace, setup: Setup, *, progress: Told | None = None, threads: int = 0) -> Comparison:
    """Ask the models whose answers are not kept, and put all answers side by side.

    `progress` is told (answers, of how many, which model) and may raise to end the child that answers.
    """
    if problem := setup.problem():
        raise UsageError(problem)
    tell = progress or (lambda done, total, words: None)
    asked = find_prompts(workspace, setup.prompts)
    tell(0, 0, f"reading {setup.prompts}")
    prompts = prompts_to_ask(asked, setup.count)
    models = []
    for written in setup.models:
        tell(0, 0, f"looking for {written}")
        models.append(answering_model(workspace, written, quiet=True))
    _require_different(models)
    require_writers(models)
    sampling = replace(setup.sampling, threads=threads)
    found, asked_now = ask(models, prompts, sampling, keep_in=workspace, quiet=True, progress=progress)
    answered = answered_by_all(asked, prompts, models, found, sampling)
    if not answered.prompts:
        raise WorkbenchError(
            f"no prompt was answered by all {len(models)} models: each leaves one of them no room for "
            f"{setup.max_new_tokens} tokens; lower the longest answer"
        )
    remember(workspace, setup)
    return Comparison(workspace, setup, answered, asked_now)


# What was compared last.


def remember(workspace: Workspace, setup: Setup) -> None:
    """Keep what is compared, so that the next time begins with it."""
    if not workspace.read_only_reason and remembered(workspace) != setup:
        with explain_os_errors("keeping what is compared", workspace.blobs):
            workspace.blobs.mkdir(mode=0o700, exist_ok=True)
            write_atomically(workspace.blobs / _LAST, orjson.dumps({"schema": SCHEMA, **asdict(setup)}))


def remembered(workspace: Workspace) -> Setup:
    """What was compared last; the defaults where nothing was."""
    try:
        content = orjson.loads((workspace.blobs / _LAST).read_bytes())
        setup = Setup(
            tuple(str(model) for model in content["models"])[:MOST],
            str(content["prompts"]),
            int(content["count"]),
            float(content["temperature"]),
            int(content["max_new_tokens"]),
            int(content["seed"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return Setup()
    return setup


def _require_different(models: Sequence[AnsweringModel]) -> None:
    seen: dict[str, str] = {}
    for model in models:
        known = model.sha256 or model.source
        if known in seen:
            raise UsageError(f"{seen[known]} and {model.source} are the same weights; pick different models")
        seen[known] = model.source


# What there is to choose from, and how it is called.


def model_choices(workspace: Workspace, also: Sequence[str] = ()) -> list[KnownModel]:
    """The models here that write answers; those of `also` that no list knows stand at the end."""
    known = [model for model in known_models(workspace) if not _is_reward_run(model)]
    names = {model.name for model in known}
    return [*known, *(KnownModel(name, "named here", "") for name in also if name not in names)]


def prompt_choices(workspace: Workspace) -> list[PromptChoice]:
    """Everything that has prompts, what suits a comparison best first: what no model was trained on, then prompts."""
    from workbench.dataset_store import list_datasets
    from workbench.preferences import list_preference_sets

    frozen, _ = list_preference_sets(workspace)
    datasets, _ = list_datasets(workspace)
    choices = [PromptChoice(one.name, "held-out prompts", one.info.counts.get("eval", 0)) for one in frozen]
    for one in sorted(datasets, key=lambda one: one.shape != "prompts"):
        if one.shape != "text":
            choices.append(PromptChoice(one.name, one.shape, one.info.rows))
    return [one for one in choices if one.rows]


def opening_setup(workspace: Workspace, reference: str = "") -> tuple[Setup, str]:
    """What a comparison begins with, and what was wrong with `reference`, a run; empty where nothing was.

    A run is compared with the model it began from. Without one it is what was compared last, else the newest run.
    """
    setup, problem = remembered(workspace), ""
    there = {model.name for model in model_choices(workspace)}
    models = tuple(m for m in setup.models if not m.startswith("run:") or _without_step(m) in there)
    runs = [name for name in there if name.startswith("run:")]
    if not reference and len(models) < FEWEST and runs:
        reference = max(runs, key=lambda name: find_run(workspace, name.removeprefix("run:")).created)
    if reference:
        try:
            models = picks_of_run(workspace, reference.removeprefix("run:"))
        except WorkbenchError as error:
            problem = str(error)
    names = [choice.name for choice in prompt_choices(workspace)]
    prompts = setup.prompts if setup.prompts in names else "".join(names[:1])
    return replace(setup, models=models, prompts=prompts), problem


def picks_of_run(workspace: Workspace, reference: str) -> tuple[str, str]:
    """The model that a run began from, and the run: what one compares after training. Raises NotFound."""
    run = find_run(workspace, reference)
    checkpoint_model(workspace, run.id)
    try:
        base = run.config().model.source
    except EngineError:
        base = "sample"
    return _as_listed(workspace, base), f"run:{run.id}"


def short_names(sources: Sequence[str]) -> list[str]:
    """Names for models, as short as they can be told apart: dpo, dpo-k3f, run:1124-dpo-x-k3f, or in full."""
    for level in (_method_or_last, _method_and_suffix, _without_step):
        names = [level(source) for source in sources]
        if len(set(names)) == len(names):
            return names
    return list(sources)


def facts_of(answer: Answer) -> tuple[str, ...]:
    """What one knows of an answer besides its words, the most telling first."""
    facts = [] if answer.stopped else ["cut off"]
    facts.append(f"{answer.tokens:,} token{'' if answer.tokens == 1 else 's'}")
    if math.isfinite(answer.logprob):
        facts.append(f"log-prob {answer.logprob:.1f}")
        if answer.tokens > 1:
            facts.append(f"{answer.logprob / answer.tokens:.2f} a token")
    return tuple(facts)


def _as_listed(workspace: Workspace, source: str) -> str:
    """`run:ID` for run:ID@STEP where the run without its step is the same checkpoint."""
    bare = _without_step(source)
    if bare != source:
        with contextlib.suppress(WorkbenchError, EngineError):
            if checkpoint_model(workspace, bare.removeprefix("run:")).source == source:
                return bare
    return source


def _is_reward_run(model: KnownModel) -> bool:
    return model.name.startswith("run:") and model.what.startswith("reward,")


def _method_or_last(source: str) -> str:
    if source.startswith("run:"):
        parts = source.removeprefix("run:").split("-")
        return parts[1] if len(parts) > 2 else parts[0]
    return source.rstrip("/").rsplit("/", 1)[-1] or source


def _method_and_suffix(source: str) -> str:
    parts = _without_step(source).split("-")
    is_run = source.startswith("run:") and len(parts) > 3
    return f"{parts[1]}-{parts[-1]}" if is_run else _method_or_last(source)


def _without_step(source: str) -> str:
    return source.partition("@")[0] if source.startswith("run:") else source
