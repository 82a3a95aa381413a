"""The form that starts a run: its fields, what a person has put into them, and what is wrong with each.

Owns which settings matter for a method, the sensible beginning, and the place beside which an error is shown.
Everything is checked by the functions that the command line uses. Refuses to know how a field is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from engine.errors import EngineError
from engine.run.config import SECTIONS
from engine.run.config_bounds import Bounds
from engine.run.config_layers import SET, parse_set, resolve
from engine.run.method_names import METHODS, ON_ROLLOUTS
from workbench.data_weights import read_weighted, split_written
from workbench.errors import UsageError, WorkbenchError
from workbench.known_models import known_models
from workbench.launch_draft import FORM, Draft, draft_of
from workbench.launch_rewards import functions_problem
from workbench.launch_settings import FORM_EXPLAINED, LABELS, MATTERING, all_keys, default_of, explanation_of
from workbench.method_words import METHOD_WORDS
from workbench.run_examples import SHAPES_FOR
from workbench.run_list import Run, find_run
from workbench.workspace import Workspace

_RUN_METHOD = re.compile(r"run:\d{4}-([a-z]+)-")
_KEY_IN_ERROR = re.compile(r"\[(\w+)\] (\w+)")
AFTER_SFT = ("dpo", "simpo", "cpo", "kto")
"""Methods that usually begin where an SFT run has ended."""
GUIDE = "guide"
"""The subject of the run that the guided demo proposes."""
MODEL = "model:"
"""A subject that begins so is a form with that model chosen."""
_CLONE = "clone:"


@dataclass(frozen=True)
class Option:
    """One thing to choose, and what it is."""

    value: str
    words: str = ""
    ready: bool = True
    """Whether it is chosen for a person who has not chosen; what is not stays among what may be chosen."""


@dataclass(frozen=True)
class Surroundings:
    """What a workspace has to choose from."""

    models: tuple[Option, ...]
    reward_models: tuple[Option, ...]
    data: tuple[tuple[str, str], ...]
    """(name, shape), the newest first."""

    def data_for(self, method: str) -> tuple[Option, ...]:
        """Data whose shape suits the method."""
        return tuple(Option(name, shape) for name, shape in self.data if shape in SHAPES_FOR[method])


@dataclass(frozen=True)
class Field:
    """One row of the form."""

    key: str
    label: str
    value: str
    origin: str
    """default, default for METHOD, or set; empty for what is no setting."""
    explanation: str
    options: tuple[Option, ...] = ()
    free: bool = True
    """Whether anything else may be typed."""
    several: bool = False
    """Whether it may name more than one, each with a weight."""


def look_around(workspace: Workspace) -> Surroundings:
    """Models, reward models and data of a workspace."""
    from workbench.dataset_list import list_data

    tuning: list[Option] = []
    judging: list[Option] = []
    for model in reversed(known_models(workspace)):
        found = _RUN_METHOD.match(model.name)
        (judging if found and found[1] == "reward" else tuning).append(Option(model.name, model.what, model.trained))
    listed, _ = list_data(workspace)
    data = tuple((one.name, "preference" if one.frozen else one.kind) for one in listed)
    frozen_first = sorted(data, key=lambda pair: not any(one.frozen and one.name == pair[0] for one in listed))
    return Surroundings(tuple(tuning), tuple(judging), tuple(frozen_first))


def first_draft(workspace: Workspace, around: Surroundings, subject: str = "") -> Draft:
    """Where a person begins: a clone ("clone:ID"), a run on the named data or from a named model ("model:NAME"), or
    what the workspace is ripe for.

    "guide" is the run that the guided demo proposes.
    """
    if subject.startswith(_CLONE):
        from workbench.run_clone import clone_request

        return draft_of(clone_request(find_run(workspace, subject.removeprefix(_CLONE))))
    if subject.startswith(MODEL):
        return replace(first_draft(workspace, around), model=subject.removeprefix(MODEL))
    if subject == GUIDE:
        from workbench.guided_demo import guide_request

        return draft_of(guide_request(workspace))
    shapes = dict(around.data)
    wanted = shapes.get(subject, "")
    has_preferences = "preference" in shapes.values()
    if wanted == "preference" or (not wanted and has_preferences):
        method = "dpo"
    elif wanted == "labelled":
        method = "kto"
    elif wanted == "prompts" and any(model.ready for model in around.reward_models):
        method = "ppo"
    else:
        method = "sft"
    suiting = around.data_for(method)
    data = subject if wanted else (suiting[0].value if suiting else "")
    draft = Draft(method=method, data=data, model=default_model(around, method))
    return with_reward_model(workspace, around, draft)


def default_model(around: Surroundings, method: str) -> str:
    """The newest model that was taught by example where preferences follow, else the sample model."""
    if method in AFTER_SFT:
        for model in around.models:
            if model.ready and model.value.startswith("run:") and _method_of(model.value) == "sft":
                return model.value
    return "sample"


def with_reward_model(workspace: Workspace, around: Surroundings, draft: Draft) -> Draft:
    """A draft on rollouts with the newest reward model, and the model over whose base that was trained."""
    ready = [model.value for model in around.reward_models if model.ready]
    if draft.method not in ON_ROLLOUTS or draft.reward_model or draft.rewards or not ready:
        return draft
    newest = ready[0]
    try:
        base = _run(workspace, newest).config().model.source
    except (EngineError, WorkbenchError, OSError):
        base = ""
    return replace(draft, reward_model=newest, model=base or draft.model)


def deciding(draft: Draft, around: Surroundings) -> tuple[str, ...]:
    """The few settings that decide how the drafted run goes: what another one overrules is not among them."""
    overruled = draft.idle()
    if goes_on_with_adapter(draft, around):
        overruled["adapter.r"] = "adapter.kind"
    of_mixture = ("data.weights_by",) if ":" in draft.data else ()
    return tuple(dict.fromkeys(overruled.get(key, key) for key in (*MATTERING[draft.method], *of_mixture)))


def fields_of(draft: Draft, around: Surroundings, *, every: bool = False) -> tuple[Field, ...]:
    """The rows of the form in order; with `every` all settings of the method follow the few that matter."""
    methods = tuple(Option(method, METHOD_WORDS[method]) for method in METHODS)
    rows = [
        _form_field(draft, "method", "method", methods, free=False),
        _form_field(draft, "model", "model", around.models),
    ]
    if draft.method in ON_ROLLOUTS:
        rows.append(replace(_form_field(draft, "reward_model", "reward model", around.reward_models), several=True))
        rows.append(_form_field(draft, "rewards", "functions", ()))
    rows.append(replace(_form_field(draft, "data", "data", around.data_for(draft.method)), several=True))
    rows.append(_form_field(draft, "name", "name", ()))
    mattering = MATTERING[draft.method] if every else deciding(draft, around)
    rows += [_setting_field(draft, key, LABELS[key]) for key in mattering]
    goes_on = goes_on_with_adapter(draft, around)
    rows = [_with_words(row, goes_on=goes_on) if row.key == "adapter.kind" else row for row in rows]
    if every:
        rows.append(_form_field(draft, "eval_share", "held-out share", ()))
        rows += [_setting_field(draft, key, key) for key in all_keys(draft.method) if key not in mattering]
    return tuple(rows)


def goes_on_with_adapter(draft: Draft, around: Surroundings) -> bool:
    """Whether the model is an adapter that the run goes on with: its rank is that adapter's, whatever is set."""
    words = next((one.words for one in around.models if one.value == draft.model.partition("@")[0]), "")
    return draft.value("adapter.kind") != "full" and ", adapter," in words


def _with_words(weights: Field, *, goes_on: bool) -> Field:
    """The row of the weights with what each choice means for this model."""
    words = {
        "lora": "goes on with the model's adapter" if goes_on else "a LoRA adapter, model frozen",
        "qlora": "an adapter over the model in 4 bits; a GPU",
        "full": "all weights of the model",
    }
    options = tuple(Option(one.value, words.get(one.value, "")) for one in weights.options)
    return replace(weights, options=options)


def problem_of(draft: Draft, around: Surroundings, key: str) -> str:
    """What is wrong with one field, as far as that can be told at once; the empty string where nothing is."""
    value = draft.value(key)
    if key == "data":
        return _data_problem(draft, around)
    if key == "rewards":
        return functions_problem(split_written(value)) if draft.method in ON_ROLLOUTS else ""
    if key == "model" or (key == "reward_model" and draft.method in ON_ROLLOUTS and not draft.rewards):
        return "" if value else "name a model"
    if key == "eval_share" and value:
        try:
            return "" if 0 <= float(value) < 1 else "from 0 up to, not including, 1"
        except ValueError:
            return "a number from 0 up to, not including, 1"
    if key in FORM:
        return ""
    try:
        resolve(draft.method, [(SET, parse_set(f"{key}={value}", draft.method))], together=False)
    except EngineError as error:
        return short_problem(str(error))
    return ""


def problems_of(draft: Draft, around: Surroundings) -> dict[str, str]:
    """Field -> what is wrong with it, for everything that can be told at once."""
    keys = [*FORM, *draft.settings]
    problems = {key: problem for key in keys if (problem := problem_of(draft, around, key))}
    return problems if problems.keys() & draft.settings.keys() else problems | _contradiction(draft)


def place_of(error: BaseException, draft: Draft) -> str:
    """The field that an error of planning is about; the empty string where it is about the whole."""
    text = str(error)
    found = _KEY_IN_ERROR.search(text)
    if found and f"{found[1]}.{found[2]}" in all_keys(draft.method):
        return f"{found[1]}.{found[2]}"
    names = [one.rpartition(":")[0] or one for one in split_written(draft.data)]
    for key, signs in (
        ("reward_model", ("--reward-model", "the reward model", *_signs_of_reward(draft))),
        ("rewards", ("--reward ", "reward functions")),
        ("train.device", ("--device",)),
        ("data", ("--data", "dataset", "preference set", "cannot train on", "no example is left")),
        ("name", ("cannot name a run",)),
        ("model", ("--model", "no run", "no checkpoint", "expected sample, ./", draft.model, draft.model[4:])),
        ("data", tuple(names)),
    ):
        if any(sign and sign in text for sign in signs):
            return key
    return ""


def _signs_of_reward(draft: Draft) -> list[str]:
    """How errors name the reward models: as they were written, or as a run that is missing."""
    written = split_written(draft.reward_model)
    runs = [one.removeprefix("run:") for one in written if one.startswith("run:")]
    signs = [*written, *(repr(name) for run in runs for name in (run, run.partition(":")[0]))]
    return [*signs, "no run"] if runs and not draft.model.startswith("run:") else signs


def short_problem(text: str) -> str:
    """An error of one setting without the words that say where it stands, because it stands there."""
    text = text.removeprefix(f"{SET}: ")
    _, colon, fault = re.sub(r"\. (Give another value|Correct its name).*$", "", text).partition(": ")
    return fault if colon else text


def needs_fetching(model: str) -> bool:
    """Whether finding this model may take a download or a conversion, which no preview should begin."""
    return model.startswith("hf:") or model.endswith(".gguf")


def _data_problem(draft: Draft, around: Surroundings) -> str:
    written = split_written(draft.data)
    if not written:
        return "choose the data" if around.data else "there is none yet; add some under datasets"
    shapes = dict(around.data)
    try:
        names = read_weighted(written).names
    except UsageError as error:
        return str(error).replace("--data ", "")
    for name in names:
        if name not in shapes:
            return f"there is no {name} here"
        if shapes[name] not in SHAPES_FOR[draft.method]:
            return f"{name} is {shapes[name]}; {draft.method} needs {' or '.join(SHAPES_FOR[draft.method])}"
    return ""


def _contradiction(draft: Draft) -> dict[str, str]:
    """The first setting that is right by itself and wrong beside the others, with what is wrong."""
    try:
        layers = [(SET, parse_set(f"{key}={text}", draft.method)) for key, text in draft.counting().items()]
        resolve(draft.method, layers)
    except EngineError as error:
        if found := _KEY_IN_ERROR.search(str(error)):
            return {f"{found[1]}.{found[2]}": str(error)[found.end() :].partition(": ")[2]}
    return {}


def _form_field(draft: Draft, key: str, label: str, options: Sequence[Option], *, free: bool = True) -> Field:
    return Field(key, label, draft.value(key), "", FORM_EXPLAINED[key], tuple(options), free)


def _setting_field(draft: Draft, key: str, label: str) -> Field:
    section, _, name = key.partition(".")
    found = next(one for one in fields(SECTIONS[section]) if one.name == name)
    choices: tuple[str, ...] = found.metadata.get("bounds", Bounds()).choices
    if str(found.type) == "bool":
        choices = ("true", "false")
    origin = resolve(draft.method, []).origins[key]
    if key in draft.settings:
        origin = f"set; {origin}: {default_of(draft.method, key) or 'none'}"
    if key in draft.settings and (by := draft.idle().get(key)):
        origin = f"not used: {by} is {draft.value(by)}"
    options = tuple(Option(choice) for choice in choices)
    return Field(key, label, draft.value(key), origin, explanation_of(key), options, free=not options)


def _run(workspace: Workspace, model: str) -> Run:
    return find_run(workspace, model.partition("@")[0])


def _method_of(model: str) -> str:
    found = _RUN_METHOD.match(model)
    return found[1] if found else ""


def change_method(draft: Draft, method: str, around: Surroundings) -> Draft:
    """The draft for another method; data that does not suit it gives way to the newest that does."""
    changed = draft.put("method", method)
    if _data_problem(changed, around) and (suiting := around.data_for(method)):
        changed = replace(changed, data=suiting[0].value)
    return changed


def estimate(workspace: Workspace, draft: Draft, go_on: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """What the run would cost. Raises as planning does; `go_on` may raise to end it."""
    from workbench.run_launch import plan_run
    from workbench.run_preview import dry_run

    return dry_run(plan_run(workspace, draft.request(), quiet=True), go_on)
