"""Starting a run: from what a person typed to a folder that holds everything, and a supervisor that holds the folder.

Owns the run's ID, the layers of its config (defaults < recipe < --set < flags < what this launch found), the freezing
of its examples, and the start. Invariants: a run folder appears whole or not at all; run.toml in it needs nothing that
this process knew.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson

from engine.errors import DataError
from engine.rewards.frozen import freeze_functions
from engine.run.blobs import share_file
from engine.run.config import DataConfig
from engine.run.config_layers import SET, Resolved, parse_set, resolve
from engine.run.config_toml import read_recipe, to_toml
from engine.run.folder import RunFolder
from engine.run.idle_settings import TYPED, WRITTEN, refuse_idle
from engine.run.method_names import ON_ROLLOUTS
from engine.run.mirror import missing_packages
from workbench.data_weights import EXAMPLE, as_written, read_weighted
from workbench.errors import NotFound, UsageError
from workbench.kept_checkpoints import checkpoints_of, keep, require_kept
from workbench.launch_device import check_processes, choose_device, gpu_environment, usable_cores
from workbench.launch_rewards import LaunchRewards, find_rewards, typed_rewards
from workbench.launch_weights import check_weights, inherited_adapter
from workbench.left_out import LeftOut, left_out_words
from workbench.model_names import ResolvedModel, resolve_model
from workbench.reward_model_state import reward_model_warnings
from workbench.run_chat import NOT_YET, check_chat, freeze_chat
from workbench.run_examples import (
    EVAL_SHARE,
    FrozenExample,
    Split,
    examples_for,
    find_source,
    note_on,
    require_suits,
)
from workbench.run_list import NAME_CHARACTERS, Run, name_in_id
from workbench.steps import Progress, Steps
from workbench.workspace import Workspace, check_name, now

THIS_RUN = "this run"
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class LaunchRequest:
    """What a person asked for; empty where they left it to the recipe or a default."""

    method: str
    model: str = ""
    data: tuple[str, ...] = ()
    """NAME or NAME:WEIGHT of each source."""
    reward_models: tuple[str, ...] = ()
    """ppo, grpo, rloo: reward models that judge the rollouts, MODEL or MODEL:WEIGHT each."""
    rewards: tuple[str, ...] = ()
    """ppo, grpo, rloo: Python functions that do, FUNCTION or FUNCTION:WEIGHT each."""
    recipe: Path | None = None
    settings: tuple[str, ...] = ()
    """--set KEY=VALUE, in order; a later one wins."""
    device: str = ""
    gpus: tuple[int, ...] = ()
    """Indices of the NVIDIA devices, one for each process; empty: the first that are free."""
    name: str = ""
    eval_share: float = EVAL_SHARE
    """Of the prompts of a plain dataset; a preference set brings its own split."""


@dataclass(frozen=True)
class Plan:
    """A run that could be started: everything is resolved, nothing is written."""

    workspace: Workspace
    run_id: str
    resolved: Resolved
    model: ResolvedModel
    rewards: LaunchRewards
    request: LaunchRequest
    data: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What a person should know before it starts."""
    doubts: tuple[str, ...] = ()
    """Of the notes those that speak against starting it so."""

    @property
    def path(self) -> Path:
        """Where the run's folder will be."""
        return self.workspace.runs / self.run_id


@dataclass
class FrozenFile:
    """One file of examples, as it is written."""

    rows_each: list[int]
    """From each source; the file holds one after the other."""
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def rows(self) -> int:
        return sum(self.rows_each)

    def add(self, stream: IO[bytes], frozen: FrozenExample) -> None:
        """Append one example."""
        line = orjson.dumps(frozen.example) + b"\n"
        self.digest.update(line)
        self.rows_each[frozen.source] += 1
        stream.write(line)


def plan_run(workspace: Workspace, request: LaunchRequest, *, quiet: bool = False) -> Plan:
    """Resolve model, data and config. Raises with what to do where something does not fit; writes nothing."""
    if request.recipe and not request.recipe.exists():
        raise NotFound(f"{request.recipe} does not exist")
    recipe = read_recipe(request.recipe) if request.recipe else {}
    layers: list[tuple[str, dict[str, Any]]] = []
    if request.recipe:
        layers.append((f"recipe {request.recipe.name}", _without_weights(recipe) if request.data else recipe))
    layers += [(SET, parse_set(text, request.method)) for text in request.settings]
    if request.device:
        layers.append(("--device", {"train": {"device": request.device}}))
    if request.gpus:
        layers.append(("--gpus", {"train": {"processes": len(request.gpus)}}))
    layers += _typed(request)
    early = resolve(request.method, layers)  # before anything slow: a wrong key is said at once
    refuse_idle(early, _chosen(early, whole=bool(_section(recipe, "run").get("id"))))
    data = read_weighted(as_written(early.config.data)).names
    if not data:
        raise UsageError(
            f"train {request.method}: name the data with --data D (or --prompts D for {', '.join(ON_ROLLOUTS)})"
        )
    sources = [find_source(workspace, name) for name in data]
    for source in sources:
        require_suits(source, request.method)
    device = choose_device(early.config.train.device, request.gpus, processes=early.config.train.processes)
    check_processes(device, early.config.train.processes)
    model = _model(workspace, request, early, quiet)
    rewards = find_rewards(workspace, request, early, model, quiet=quiet)
    check_weights(early, device, model)
    check_chat(early.config.chat, model)
    shape, overruled = inherited_adapter(early, model)
    run_id = new_run_id(workspace, request.method, request.name or early.config.run.name or default_name(model.source))
    found = _found(workspace, run_id, model, rewards, device, early) | {"adapter": shape}
    layers.append((THIS_RUN, found))
    resolved = resolve(request.method, layers)
    remarks = filter(None, (note_on(source, request.method) for source in sources))
    doubts = tuple(doubt for one in rewards.models for doubt in reward_model_warnings(workspace, one))
    named = [f"model {model.source}: {model.note}"] if model.note else []
    named += rewards.notes(resolved.config.adapter.kind)
    notes = (*doubts, *named, *overruled, *remarks, *_weight_notes(resolved.config.data), *_mirror_notes(resolved))
    return Plan(workspace, run_id, resolved, model, rewards, request, data, notes, doubts)


def create_run(plan: Plan, *, progress: Progress | None = None) -> Run:
    """Make the run's folder with its frozen examples and run.toml. It appears whole; nothing runs yet.

    `progress` counts examples, of a number that is not known, and may raise: then nothing is left.
    """
    from engine.run.events import append_event

    over = checkpoints_of(plan.workspace, (plan.model, *plan.rewards.models))
    keep(over)
    with plan.workspace.new_folder("runs", plan.run_id) as hidden:
        folder = RunFolder(hidden)
        folder.data.mkdir(mode=0o700)
        left_out = LeftOut(len(plan.data))
        frozen = _freeze_examples(plan, folder, Steps(0, progress), left_out)
        plan.workspace.blobs.mkdir(mode=0o700, exist_ok=True)
        for split, file in frozen.items():
            share_file(folder.data / f"{split}.jsonl", file.digest.hexdigest(), plan.workspace.blobs)
        freeze_functions(plan.rewards.functions, folder.rewards)
        chat = freeze_chat(plan.resolved.config.chat, plan.model, folder)
        require_kept(over)
        folder.lay_out(to_toml(replace(_with_data(plan.resolved, frozen).config, chat=chat)))
    run = Run(RunFolder(plan.path), plan.workspace)
    rows = {"train_rows": frozen["train"].rows, "eval_rows": frozen["eval"].rows}
    lost = left_out.by_source(plan.data)
    append_event(
        run.folder, "created", **rows, eval_share=plan.request.eval_share, **({"left_out": lost} if lost else {})
    )
    return run


def start_run(run: Run, *, gpus: Sequence[int] = (), queued: bool = False) -> None:
    """Start the supervisor of a run in its own session; returns once it holds the run. Raises with its reason.

    With `queued` the supervisor waits until the device is free of other runs of this workspace.
    """
    from engine.run.detached_start import start_detached

    start_detached(run.folder.path, env=gpu_environment(gpus), queued=queued)


def new_run_id(workspace: Workspace, method: str, name: str) -> str:
    """1124-dpo-NAME-k3f: month and day, so that IDs sort, what it is, and three characters that make it unique."""
    check_name(name, "run")
    taken = set(workspace.names("runs"))
    stem = f"{datetime.now():%m%d}-{method}-{name_in_id(name)}"
    while True:
        run_id = f"{stem}-{''.join(secrets.choice(_ALPHABET) for _ in range(3))}"
        if run_id not in taken:
            return check_name(run_id, "run")


def default_name(source: str) -> str:
    """What an unnamed run is called in its ID, after its model: the last part of it, in lower case and plain signs."""
    text = source.partition("@")[0]
    prefix, _, rest = text.partition(":")
    text = rest if prefix in ("run", "hf") else text
    if prefix == "run":
        found = re.fullmatch(r"\d{4}-[a-z]+-(.+)-[0-9a-z]{3}", text)
        text = found[1] if found else text
    last = Path(text).name.removesuffix(".gguf").lower()
    return re.sub(r"[^a-z0-9._]+", "-", last).strip("-._")[:NAME_CHARACTERS].rstrip("-._") or "model"


def _model(workspace: Workspace, request: LaunchRequest, early: Resolved, quiet: bool) -> ResolvedModel:
    written = request.model or early.config.model.source
    if not written:
        raise UsageError(f"train {request.method}: name the model with --model M")
    model = resolve_model(workspace, written, quiet=quiet)
    if model.is_reward_model and request.method != "reward":
        raise UsageError(f"--model {written} is a reward model; {request.method} tunes a language model")
    return model


def _typed(request: LaunchRequest) -> list[tuple[str, dict[str, Any]]]:
    """What was given by flags of its own, each under the flag's name. The model's source is resolved later."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if request.data:
        data = read_weighted(request.data)
        weights = {"weights": list(data.weights)} if data.weights else {}
        layers.append(("--data", {"data": {"names": list(data.names), **weights}}))
    layers += typed_rewards(request)
    if request.name:
        layers.append(("--name", {"run": {"name": request.name}}))
    return layers


def _mirror_notes(resolved: Resolved) -> tuple[str, ...]:
    """Which mirrors will not be written, because their package is not there; the run trains all the same."""
    missing = missing_packages(resolved.config)
    return tuple(f"mirror.to = {one}: it is not installed here: pip install 'workbench[{one}]'" for one in missing)


def _without_weights(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe for other data than its own, whose weights belong to the names that are written there."""
    if not (data := _section(recipe, "data")):
        return recipe
    return {**recipe, "data": {key: value for key, value in data.items() if key != "weights"}}


def _section(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    found = recipe.get(name)
    return found if isinstance(found, dict) else {}


def _chosen(resolved: Resolved, *, whole: bool) -> dict[str, int]:
    """Which settings a person chose, and how lately. A `whole` run.toml as recipe holds what nobody chose, too."""
    ranks = {"default": 0, "recipe": 0 if whole else WRITTEN}
    found = {key: ranks.get(origin.partition(" ")[0], TYPED) for key, origin in resolved.origins.items()}
    return {key: rank for key, rank in found.items() if rank}


def _weight_notes(data: DataConfig) -> tuple[str, ...]:
    if data.weights_by == "rows" or data.weights:
        return ()
    return (f"data.weights_by = {data.weights_by} means nothing without weights: {EXAMPLE}",)


def _found(
    workspace: Workspace,
    run_id: str,
    model: ResolvedModel,
    rewards: LaunchRewards,
    device: str,
    early: Resolved,
) -> dict[str, Any]:
    """The last layer: what this launch resolved. It wins over everything, so that any run.toml is a valid recipe."""
    of_rewards = rewards.found(workspace, early.config)
    written = {**model.written_in(workspace), **of_rewards.pop("model")}
    train: dict[str, Any] = {} if early.config.train.device == device else {"device": device}
    if early.config.train.threads == 0 and device == "cpu":
        train["threads"] = usable_cores()  # written out: a resume is bit-equal only with the same number
    return {
        "run": {"id": run_id, "created": now()},
        "model": written,
        "data": {
            "train": "data/train.jsonl",
            "eval": "data/eval.jsonl",
            "train_sha256": "",
            "eval_sha256": "",
            "train_rows": 0,
            "eval_rows": 0,
            "train_rows_each": [],
            "eval_rows_each": [],
        },
        "chat": dict(NOT_YET),
        "train": train,
        **of_rewards,
    }


def _freeze_examples(plan: Plan, folder: RunFolder, steps: Steps, left_out: LeftOut) -> dict[Split, FrozenFile]:
    files: dict[Split, FrozenFile] = {
        "train": FrozenFile([0] * len(plan.data)), "eval": FrozenFile([0] * len(plan.data)),
    }  # fmt: skip
    config = plan.resolved.config
    with open(folder.data / "train.jsonl", "wb") as train, open(folder.data / "eval.jsonl", "wb") as held_out:
        streams: dict[Split, IO[bytes]] = {"train": train, "eval": held_out}
        for frozen in steps.over(examples_of(plan, left_out)):
            files[frozen.split].add(streams[frozen.split], frozen)
    if files["train"].rows == 0:
        raise DataError(
            f"{', '.join(plan.data)}: no example is left to train on for {config.run.method} "
            f"({files['eval'].rows} are held out{_lost_words(left_out)}); add data, or lower --eval-share"
        )
    require_each(plan, files["train"].rows_each)
    return files


def _lost_words(left_out: LeftOut) -> str:
    words = left_out_words(left_out.total)
    return f", and left out are {words}" if words else ""


def require_each(plan: Plan, train_rows_each: Sequence[int]) -> None:
    """Raises DataError where a source of a mixture has no row to train on."""
    if not plan.resolved.config.data.weights:
        return
    for name, rows in zip(plan.data, train_rows_each, strict=True):
        if rows == 0:
            raise DataError(
                f"{name}: it has a weight, and no example is left to train on for {plan.request.method}. Leave it out, "
                "or lower --eval-share"
            )


def examples_of(plan: Plan, left_out: LeftOut | None = None) -> Iterator[FrozenExample]:
    """The examples of a plan, one source after the other."""
    config, share = plan.resolved.config, plan.request.eval_share
    return examples_for(
        plan.workspace, plan.data, config.run.method, eval_share=share, seed=config.train.seed, left_out=left_out
    )


def _with_data(resolved: Resolved, frozen: dict[Split, FrozenFile]) -> Resolved:
    train, held_out = frozen["train"], frozen["eval"]
    data = replace(
        resolved.config.data,
        train_sha256=train.digest.hexdigest(),
        eval_sha256=held_out.digest.hexdigest(),
        train_rows=train.rows,
        eval_rows=held_out.rows,
    )
    if len(data.names) > 1:
        data = replace(data, train_rows_each=tuple(train.rows_each), eval_rows_each=tuple(held_out.rows_each))
    return Resolved(replace(resolved.config, data=data), resolved.origins)
