"""The form that makes a pair set or an arena: its fields, what a person put into them, what is wrong, what comes of it.

Owns which fields matter for which kind of set and the sensible beginning. Everything is checked by what makes the set:
the label form, the sharing, the sampling. Refuses to know how a field is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, cast

from workbench.arena_list import arena_stem
from workbench.errors import WorkbenchError
from workbench.generation import Sampling
from workbench.label_form import LabelForm, form_of
from workbench.launch_form import Field, Option
from workbench.pair_list import datasets_to_pair
from workbench.pair_making import PairRequest
from workbench.pair_sets import PairKind
from workbench.pair_sharing import NEXT_PAIRS, Sharing
from workbench.pairing import PAIRINGS, WORDS, Pairing
from workbench.side_by_side import PromptChoice, model_choices, prompt_choices, short_names
from workbench.statistics import wilson_interval
from workbench.terminal_output import counted
from workbench.url_model import URL, read_url
from workbench.workspace import Workspace, free_name, name_problem

NO_MODEL = "none"
OF_DATASET, OF_MODELS, OF_ARENA = "dataset", "models", "arena"
KINDS = (
    Option(OF_DATASET, "the pairs that a dataset has"),
    Option(OF_MODELS, "answers of one or two models to prompts"),
    Option(OF_ARENA, "answers of two models, to tell which is better: an arena"),
)
SCALES = (Option("3", "left, right, tie"), Option("5", "also much better, on either side"))
NEXT_WORDS = {"order": "as the set lies", "random": "shuffled", "active": "the hardest first; pairs rank finds them"}
_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "samples": "2", "temperature": "1.0", "top_p": "1.0", "max_new_tokens": "256", "seed": "1", "limit": "",
        "pairing": "each", "model2": NO_MODEL, "scale": "3", "overlap": "0", "repeat_share": "0", "next": "order",
        "random_share": "0.2",
    }
)  # fmt: skip
_NUMBERS: Mapping[str, tuple[Callable[[str], Any], float, float, str]] = MappingProxyType(
    {
        "samples": (int, 1, 1000, "a whole number from 1 to 1,000"),
        "temperature": (float, 0, 100, "a number from 0 to 100"),
        "top_p": (float, 1e-9, 1, "a number above 0, to 1"),
        "max_new_tokens": (int, 1, 10**6, "a whole number from 1"),
        "seed": (int, -(2**63), 2**63 - 1, "a whole number"),
        "limit": (int, 1, 10**9, "a whole number from 1; empty for all"),
        "overlap": (int, 0, 1000, "a whole number from 0"),
        "repeat_share": (float, 0, 1, "a number from 0 to 1"),
        "random_share": (float, 1e-9, 1, "a number above 0, to 1"),
    }
)
"""Key → how its text becomes a number, least, most, and how that is said."""
NEW_ARENA = "new:arena"
"""The subject of a form that begins with an arena; no dataset can be called so."""


@dataclass(frozen=True)
class PairSurroundings:
    """What there is to make pairs of, and the names that are taken."""

    datasets: tuple[tuple[str, str, int], ...]
    """(name, shape, rows) of those that have two answers a row."""
    prompts: tuple[PromptChoice, ...]
    models: tuple[Option, ...]
    reward_models: tuple[Option, ...]
    taken: tuple[str, ...]
    arenas: tuple[str, ...] = ()
    """The names of arenas that are taken."""


@dataclass(frozen=True)
class PairDraft:
    """What a person has chosen so far, as it was typed."""

    typed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def value(self, key: str) -> str:
        """What stands in a field."""
        return self.typed.get(key, self.default(key))

    def default(self, key: str) -> str:
        """What stands in a field that nobody has typed in."""
        return "1" if key == "samples" and self.of_arena else _DEFAULTS.get(key, "")

    def put(self, key: str, text: str) -> PairDraft:
        """The draft with another value in a field; the empty text brings the default back."""
        typed = {name: value for name, value in self.typed.items() if name != key}
        if text.strip():
            typed[key] = text.strip()
        return replace(self, typed=MappingProxyType(typed))

    @property
    def of_models(self) -> bool:
        """Whether models are to answer."""
        return self.value("kind") in (OF_MODELS, OF_ARENA)

    @property
    def of_arena(self) -> bool:
        """Whether two models are to be compared."""
        return self.typed.get("kind") == OF_ARENA

    @property
    def pair_kind(self) -> PairKind:
        """What is made."""
        return "arena" if self.of_arena else "pairs"

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are to answer."""
        return tuple(name for name in (self.value("model"), self.value("model2")) if name not in ("", NO_MODEL))


def look_around(workspace: Workspace) -> PairSurroundings:
    """What a workspace has to make pairs of."""
    from workbench.known_models import known_models

    tuning = tuple(Option(one.name, one.what, one.trained) for one in reversed(model_choices(workspace)))
    writing = {one.value for one in tuning}
    judging = tuple(Option(one.name, one.what, one.trained) for one in reversed(known_models(workspace))
                    if one.name.startswith("run:") and one.name not in writing)  # fmt: skip
    return PairSurroundings(
        tuple(datasets_to_pair(workspace)),
        tuple(prompt_choices(workspace)),
        tuning,
        judging,
        tuple(workspace.names("pairs")),
        tuple(workspace.names("arena")),
    )


def first_pair_draft(around: PairSurroundings, subject: str = "") -> PairDraft:
    """Where a person begins: the dataset or the prompts that were named, else a dataset with pairs, else models.

    With `NEW_ARENA` it is an arena of the two models trained last.
    """
    paired = [name for name, _, _ in around.datasets]
    prompts = [one.name for one in around.prompts]
    of_models = subject not in paired and (subject in prompts or not paired)
    draft = PairDraft().put("kind", OF_ARENA if subject == NEW_ARENA else OF_MODELS if of_models else OF_DATASET)
    draft = draft.put("data", subject if subject in paired else "".join(paired[:1]))
    draft = draft.put("prompts", subject if subject in prompts else "".join(prompts[:1]))
    ready = [one.value for one in around.models if one.ready]
    draft = draft.put("model", "".join(ready[:1]))
    if draft.of_arena:
        draft = draft.put("model2", "".join(ready[1:2]))
    return draft.put("name", name_for(draft, around))


def name_for(draft: PairDraft, around: PairSurroundings) -> str:
    """A free name that says what the set is made of."""
    if draft.of_arena:
        two = short_names(draft.models) if len(draft.models) == 2 and len(set(draft.models)) == 2 else []
        return free_name(around.arenas, arena_stem(*two) if two else "arena")
    stem = draft.value("prompts") if draft.of_models else draft.value("data")
    return free_name(around.taken, stem or "pairs")


def pair_fields(draft: PairDraft, around: PairSurroundings, *, every: bool = False) -> tuple[Field, ...]:
    """The rows of the form in order; with `every` those follow that rarely matter."""
    rows = [
        _field(
            draft,
            "kind",
            "made of",
            "a dataset that has pairs, models that answer, or an arena of two models",
            KINDS,
            free=False,
        )
    ]
    if draft.of_models:
        prompts = tuple(Option(one.name, f"{one.what}, {one.rows:,} rows") for one in around.prompts)
        rows.append(_field(draft, "prompts", "prompts", "what the models are asked", prompts, free=False))
        rows.append(_field(draft, "model", "model", "who answers; or url:http://HOST/v1#NAME", around.models))
        alone = () if draft.of_arena else (Option(NO_MODEL, "answers of one model"),)
        second = (*alone, *around.models)
        rows.append(_field(draft, "model2", "second model", "its answers stand beside the first one's", second))
        rows.append(_field(draft, "samples", "answers each", "of each model to each prompt"))
    if draft.value("kind") == OF_MODELS:
        pairings = tuple(Option(one, WORDS[one]) for one in PAIRINGS)
        rows.append(_field(draft, "pairing", "pairing", "which answers become a pair", pairings, free=False))
        if draft.value("pairing") == "best-worst":
            rows.append(_field(draft, "reward_model", "reward model", "who says which is best", around.reward_models))
    if draft.of_models:
        rows.append(_field(draft, "limit", "prompts asked", "only the first so many; empty: all"))
    else:
        data = tuple(Option(name, f"{shape}, {rows:,} rows") for name, shape, rows in around.datasets)
        rows.append(_field(draft, "data", "dataset", "its rows have two answers", data, free=False))
    rows.append(_field(draft, "name", "name", "of the new arena" if draft.of_arena else "of the new pair set"))
    if not draft.of_arena:
        rows += _asked_of_annotators(draft)
    if draft.of_models:
        rows.append(_field(draft, "temperature", "temperature", "0 is greedy: one answer"))
    return (*rows, *_rarer(draft)) if every else tuple(rows)


def _asked_of_annotators(draft: PairDraft) -> list[Field]:
    rows = []
    rows.append(_field(draft, "scale", "scale", "what an annotator can say", SCALES, free=False))
    rows.append(_field(draft, "criteria", "criteria", "NAME=QUESTION; NAME …: questions of their own; empty: one"))
    rows.append(_field(draft, "overlap", "overlap", "people who judge each pair; 0: everyone judges everything"))
    return rows


def _rarer(draft: PairDraft) -> list[Field]:
    rows = []
    if draft.of_models:
        rows.append(_field(draft, "top_p", "top-p", "nucleus sampling; 1 is off"))
        rows.append(_field(draft, "max_new_tokens", "longest answer", "tokens; a longer one is cut off"))
        rows.append(_field(draft, "seed", "seed", "the same seed gives the same answers"))
    if draft.of_arena:
        return rows
    order = tuple(Option(one, NEXT_WORDS[one]) for one in NEXT_PAIRS)
    rows.append(_field(draft, "next", "next pair", "which pair an annotator is shown next", order, free=False))
    if draft.value("next") == "active":
        rows.append(_field(draft, "random_share", "random share", "of the places that a random pair takes"))
    rows.append(_field(draft, "repeat_share", "repeat share", "of pairs that return once, swapped, to the same person"))
    rows.append(_field(draft, "tags", "reasons", "too long, made up …: what an annotator is offered"))
    rows.append(_field(draft, "guidelines", "guidelines", "a text file that annotators read behind ?"))
    rows.append(_field(draft, "calibration", "calibration", "a file of pairs with known answers, mixed in unseen"))
    return rows


def _field(
    draft: PairDraft, key: str, label: str, explanation: str, options: tuple[Option, ...] = (), *, free: bool = True
) -> Field:
    value = draft.value(key)
    origin = "default" if key in _DEFAULTS and value == draft.default(key) else ""
    return Field(key, label, value, origin, explanation, options, free)


# What is wrong, and what comes of it.


def pair_problems(draft: PairDraft, around: PairSurroundings, workspace: Workspace) -> dict[str, str]:
    """Field → what is wrong with it, for everything that can be told at once and matters for this kind."""
    shown = {field.key for field in pair_fields(draft, around, every=True)}
    return {key: words for key, words in _problems(draft, around, workspace).items() if key in shown}


def _problems(draft: PairDraft, around: PairSurroundings, workspace: Workspace) -> dict[str, str]:
    found = {}
    for key, (kind, least, most, words) in _NUMBERS.items():
        text = draft.value(key)
        try:
            if text and not least <= kind(text) <= most:
                found[key] = words
        except ValueError:
            found[key] = words
    if problem := name_problem(workspace, draft.pair_kind, draft.value("name")):
        found["name"] = problem if draft.value("name") else "give it a name"
    found |= _problems_of_models(draft, found) if draft.of_models else {}
    if not draft.of_models and draft.value("data") not in [name for name, _, _ in around.datasets]:
        found["data"] = "choose a dataset" if around.datasets else "none has pairs yet; add one, or let models answer"
    if draft.of_models and draft.value("prompts") not in [one.name for one in around.prompts]:
        found["prompts"] = "choose the prompts" if around.prompts else "nothing here has prompts; add a dataset"
    for key in ("criteria", "tags", "guidelines"):
        try:
            _form(PairDraft().put(key, draft.value(key)))
        except WorkbenchError as error:
            found[key] = str(error)
    return found


def _problems_of_models(draft: PairDraft, wrong: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for key in ("model", "model2"):
        if draft.value(key).startswith(URL):
            try:
                read_url(draft.value(key))
            except WorkbenchError as error:
                found[key] = str(error)
    if not draft.value("model"):
        found["model"] = "name a model"
    elif draft.value("model") == draft.value("model2"):
        found["model2"] = "the same as the first; name another" + ("" if draft.of_arena else ", or none")
    elif draft.of_arena and len(draft.models) < 2:
        found["model2"] = "name a second one to compare"
    elif len(draft.models) == 1 and "samples" not in wrong and int(draft.value("samples")) < 2:
        found["samples"] = "one model needs 2 or more to make pairs"
    elif len(draft.models) == 1 and "temperature" not in wrong and float(draft.value("temperature")) == 0:
        found["temperature"] = "0 gives one answer; raise it, or name a second model"
    if draft.value("pairing") == "best-worst" and not draft.value("reward_model"):
        found["reward_model"] = "name a run of train reward: it says which answer is best"
    return found


def pair_request(draft: PairDraft) -> PairRequest:
    """The request that a draft without problems becomes; what its kind does not show is not looked at."""
    name = draft.value("name")
    asked = PairRequest(name, kind="arena") if draft.of_arena else PairRequest(
        name, form=_form(draft), sharing=_sharing(draft), calibration=draft.value("calibration")
    )  # fmt: skip
    if not draft.of_models:
        return replace(asked, dataset=draft.value("data"))
    pairing = "each" if draft.of_arena else draft.value("pairing")
    return replace(
        asked,
        prompts=draft.value("prompts"),
        models=draft.models,
        sampling=_sampling(draft),
        limit=int(draft.value("limit") or 0),
        pairing=cast(Pairing, pairing),
        reward_model=draft.value("reward_model") if pairing == "best-worst" else "",
    )


def _sharing(draft: PairDraft) -> Sharing:
    order = draft.value("next")
    share = draft.value("random_share") if order == "active" else draft.default("random_share")
    return Sharing(
        int(draft.value("overlap")), float(draft.value("repeat_share")), cast(Any, order), float(share)
    )  # fmt: skip


def outlook(draft: PairDraft, around: PairSurroundings) -> list[str]:
    """What the set would be, in a few lines; for a draft without problems."""
    if not draft.of_models:
        rows = next((rows for name, _, rows in around.datasets if name == draft.value("data")), 0)
        return [f"{counted(rows, 'pair')} at most: equal answers make none", *_judging(draft)]
    prompts = next((one.rows for one in around.prompts if one.name == draft.value("prompts")), 0)
    prompts = min(prompts, int(draft.value("limit") or prompts))
    each, models = int(draft.value("samples")), len(draft.models)
    answers = each * models
    if draft.of_arena:
        return _arena_outlook(prompts, each)
    pairs = {"all": answers * (answers - 1) // 2, "best-worst": 1}.get(
        draft.value("pairing"), each // 2 if models == 1 else each
    )
    return [
        f"{counted(prompts, 'prompt')} at most, {answers} answers each: {prompts * answers:,} to be given",
        f"{counted(prompts * pairs, 'pair')} at most: equal answers make none",
        "answers are kept as they come: what was ended goes on with w",
        *_judging(draft),
    ]


def _arena_outlook(prompts: int, each: int) -> list[str]:
    pairs = prompts * each
    low, high = wilson_interval(pairs / 2, pairs)
    return [
        f"{counted(prompts, 'prompt')} at most, {2 * each} answers each: {2 * pairs:,} to be given",
        f"{counted(pairs, 'pair')} at most: equal answers make none, and count as a tie",
        f"all of them judged tell a win rate of 0.50 to ±{(high - low) / 2:.2f}",
        "whose answers they are stays hidden until you have judged every pair",
        "answers are kept as they come: what was ended goes on with w",
    ]


def _judging(draft: PairDraft) -> list[str]:
    overlap = int(draft.value("overlap"))
    people = f"{overlap} people judge each pair" if overlap > 1 else "one person judges each pair" if overlap else (
        "everyone judges every pair")  # fmt: skip
    questions = [one.name for one in _form(draft).criteria]
    return [people, f"asked about: {', '.join(questions)}" if questions else "one question: which is better"]


def _sampling(draft: PairDraft) -> Sampling:
    from workbench.launch_device import choose_device

    return Sampling(
        int(draft.value("samples")), float(draft.value("temperature")), float(draft.value("top_p")),
        int(draft.value("max_new_tokens")), int(draft.value("seed")), choose_device("auto"),
    )  # fmt: skip


def _form(draft: PairDraft) -> LabelForm:
    tags = [tag.strip() for tag in draft.value("tags").split(",") if tag.strip()]
    criteria = [one.strip() for one in draft.value("criteria").split(";") if one.strip()]
    return form_of(draft.value("scale"), tags, criteria, draft.value("guidelines") or None)
