"""Making a pair set or an arena as a person asked for it, by a command or a form: of a dataset, or of models' answers.

Owns what may be asked for together, and the order of the work: what can be refused at once is refused before a model is
looked for, and a model before it is asked. Refuses to know how it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from workbench.child_programs import Told
from workbench.dataset_store import open_dataset
from workbench.errors import UsageError
from workbench.generation import Sampling
from workbench.label_form import LabelForm
from workbench.model_names import ResolvedModel, resolve_model
from workbench.pair_generation import ask_models, pairs_from_models, require_free_name, require_two_answers
from workbench.pair_sets import CandidatePair, PairKind, PairSet, pairs_from_dataset
from workbench.pair_sharing import Sharing
from workbench.pairing import Pairing, require_reward_model
from workbench.prompt_source import find_prompts
from workbench.url_model import answering_model
from workbench.workspace import Workspace


@dataclass(frozen=True)
class PairRequest:
    """What pair set or arena is wanted."""

    name: str
    kind: PairKind = "pairs"
    """An arena is of the answers of two models, each pair of one answer by each."""
    dataset: str = ""
    """Whose rows have two answers; empty where models answer."""
    prompts: str = ""
    """A dataset or a preference set, whose prompts are put to the models."""
    models: tuple[str, ...] = ()
    """One or two, as they are written after --model."""
    sampling: Sampling = field(default_factory=Sampling)
    limit: int = 0
    """Only the first prompts; 0: all."""
    pairing: Pairing = "each"
    reward_model: str = ""
    """Who says which answer is best, for "best-worst"."""
    form: LabelForm = field(default_factory=LabelForm)
    sharing: Sharing = field(default_factory=Sharing)
    calibration: str = ""
    """A file of pairs with known answers."""


def make_pair_set(
    workspace: Workspace, request: PairRequest, *, quiet: bool = False, progress: Told | None = None
) -> PairSet:
    """Make it. `progress` is told (done, of how many, words) and may raise to end it: answers that came are kept."""
    workspace.require_writable()
    require_free_name(workspace, request.name, request.kind)
    if request.dataset:
        return pairs_from_dataset(
            workspace, request.name, open_dataset(workspace, request.dataset), form=request.form,
            sharing=request.sharing, calibration=_calibration(request),
            progress=None if progress is None else lambda done, total: progress(done, total, "pairs"),
        )  # fmt: skip
    if not request.models:
        raise UsageError("--prompts needs --model M to answer them")
    if request.reward_model and request.pairing != "best-worst":
        raise UsageError("--reward-model says which answer is best: it goes with --pairing best-worst")
    calibration = _calibration(request)
    asked = find_prompts(workspace, request.prompts)
    models = [answering_model(workspace, written, quiet=quiet) for written in request.models]
    judging = _judging(workspace, request, quiet)
    require_two_answers(models, request.sampling)
    answered = ask_models(
        asked, models, request.sampling, limit=request.limit, keep_in=workspace, quiet=quiet, progress=progress
    )
    return pairs_from_models(
        workspace, request.name, answered, kind=request.kind, form=request.form, sharing=request.sharing,
        calibration=calibration, pairing=request.pairing, reward_model=judging,
    )  # fmt: skip


def _calibration(request: PairRequest) -> list[CandidatePair]:
    if not request.calibration:
        return []
    from workbench.calibration_file import read_calibration

    return list(read_calibration(Path(request.calibration)))


def _judging(workspace: Workspace, request: PairRequest, quiet: bool) -> ResolvedModel | None:
    found = resolve_model(workspace, request.reward_model, quiet=quiet) if request.reward_model else None
    return require_reward_model(found) if request.pairing == "best-worst" else None
