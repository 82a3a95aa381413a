"""Starting a run: from what a person typed to a folder that holds everything, and a supervisor that holds the folder.

Owns the run's ID, the layers of its config (defaults < recipe < --set < flags < what this launch found), the freezing
of its examples, and the start. Invariants: a run folder appears whole or not at all; run.toml in it needs nothing that
this process knew; training never falls back from an NVIDIA device to the CPU by itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson

from engine.errors import DataError
from engine.run.config_layers import SET, Resolved, parse_set, resolve
from engine.run.config_toml import read_recipe, to_toml
from engine.run.folder import RunFolder
from workbench.errors import NotFound, UsageError, WorkbenchError
from workbench.model_names import ResolvedModel, resolve_model
from workbench.run_examples import EVAL_SHARE, Example, Split, examples_for, find_source, require_suits
from workbench.run_list import Run
from workbench.workspace import Workspace, check_name, now

THIS_RUN = "this run"
NAME_CHARACTERS = 30
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class LaunchRequest:
    """What a person asked for; empty where they left it to the recipe or a default."""

    method: str
    model: str = ""
    data: tuple[str, ...] = ()
    reward_model: str = ""
    """ppo: what judges the rollouts."""
    recipe: Path | None = None
    settings: tuple[str, ...] = ()
    """--set KEY=VALUE, in order; a later one wins."""
    device: str = ""
    gpu: int | None = None
    """Index of the NVIDIA device; None: the first that torch sees."""
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
    reward_model: ResolvedModel | None
    request: LaunchRequest
    data: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What a person should know before it starts."""

    @property
    def path(self) -> Path:
        """Where the run's folder will be."""
        return self.workspace.runs / self.run_id


@dataclass
class FrozenFile:
    """One file of examples, as it is written."""

    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, stream: IO[bytes], example: Example) -> None:
        """Append one example."""
        line = orjson.dumps(example) + b"\n"
        self.digest.update(line)
        self.rows += 1
        stream.write(line)


def plan_run(workspace: Workspace, request: LaunchRequest, *, quiet: bool = False) -> Plan:
    """Resolve model, data and config. Raises with what to do where something does not fit; writes nothing."""
    if request.recipe and not request.recipe.exists():
        raise NotFound(f"{request.recipe} does not exist")
    recipe = read_recipe(request.recipe) if request.recipe else {}
    layers: list[tuple[str, dict[str, Any]]] = []
    if request.recipe:
        layers.append((f"recipe {request.recipe.name}", recipe))
    layers += [(SET, parse_set(text, request.method)) for text in request.settings]
    if request.device:
        layers.append(("--device", {"train": {"device": request.device}}))
    early = resolve(request.method, layers)  # before anything slow: a wrong key is said at once
    data = request.data or early.config.data.names
    if not data:
        raise UsageError(f"train {request.method}: name the data with --data D (or --prompts D for ppo)")
    for name in data:
        require_suits(find_source(workspace, name), request.method)
    device = choose_device(early.config.train.device, request.gpu)
    model, reward_model = _models(workspace, request, early, quiet)
    run_id = new_run_id(workspace, request.method, request.name or early.config.run.name or default_name(model.source))
    layers += _typed(request, data)
    layers.append((THIS_RUN, _found(workspace, run_id, model, reward_model, device, early)))
    resolved = resolve(request.method, layers)
    return Plan(workspace, run_id, resolved, model, reward_model, request, data, _notes(model, reward_model))


def create_run(plan: Plan) -> Run:
    """Make the run's folder with its frozen examples and run.toml. It appears whole; nothing runs yet."""
    from engine.run.events import append_event

    with plan.workspace.new_folder("runs", plan.run_id) as hidden:
        folder = RunFolder(hidden)
        folder.data.mkdir(mode=0o700)
        frozen = _freeze_examples(plan, folder)
        folder.lay_out(to_toml(_with_data(plan.resolved, frozen).config))
    run = Run(RunFolder(plan.path), plan.workspace)
    append_event(run.folder, "created", train_rows=frozen["train"].rows, eval_rows=frozen["eval"].rows)
    return run


def start_run(run: Run, *, gpu: int | None = None) -> None:
    """Start the supervisor of a run in its own session; returns once it holds the run. Raises with its reason."""
    from engine.run.supervisor import start_detached

    start_detached(run.folder.path, env=gpu_environment(gpu))


def gpu_environment(gpu: int | None) -> dict[str, str]:
    """What the supervisor needs in its environment to use one device."""
    return {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}


def choose_device(wanted: str, gpu: int | None = None) -> str:
    """cpu or cuda. An NVIDIA device that torch cannot use is an error unless the CPU was asked for."""
    if wanted == "cpu":
        if gpu is not None:
            raise UsageError("--gpus and --device cpu exclude each other")
        return "cpu"
    from engine.run.gpus import installed_gpus, torch_usable

    gpus = installed_gpus()
    if not gpus:
        if wanted == "cuda" or gpu is not None:
            raise WorkbenchError(
                "no NVIDIA device here (nvidia-smi finds none); use --device cpu. See: workbench doctor"
            )
        return "cpu"
    reason = torch_usable()
    if reason:
        raise WorkbenchError(f"{reason}. Or train on the CPU on purpose: --device cpu")
    if gpu is not None and gpu not in {one.index for one in gpus}:
        raise UsageError(f"--gpus {gpu}: there are: {', '.join(str(one.index) for one in gpus)}. See: workbench gpus")
    return "cuda"


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def new_run_id(workspace: Workspace, method: str, name: str) -> str:
    """1124-dpo-NAME-k3f: month and day, so that IDs sort, what it is, and three characters that make it unique."""
    check_name(name, "run")
    taken = set(workspace.names("runs"))
    stem = f"{datetime.now():%m%d}-{method}-{name[:NAME_CHARACTERS].rstrip('.-_')}"
    while True:
        run_id = f"{stem}-{''.join(secrets.choice(_ALPHABET) for _ in range(3))}"
        if run_id not in taken:
            return check_name(run_id, "run")


def default_name(source: str) -> str:
    """A run's name from its model: the last part of it, in lower case, with what a name may hold."""
    text = source.partition("@")[0]
    prefix, _, rest = text.partition(":")
    text = rest if prefix in ("run", "hf") else text
    if prefix == "run":
        found = re.fullmatch(r"\d{4}-[a-z]+-(.+)-[0-9a-z]{3}", text)
        text = found[1] if found else text
    last = Path(text).name.removesuffix(".gguf").lower()
    return re.sub(r"[^a-z0-9._]+", "-", last).strip("-._")[:NAME_CHARACTERS].rstrip("-._") or "model"


def _models(
    workspace: Workspace, request: LaunchRequest, early: Resolved, quiet: bool
) -> tuple[ResolvedModel, ResolvedModel | None]:
    written = request.model or early.config.model.source
    if not written:
        raise UsageError(f"train {request.method}: name the model with --model M")
    model = resolve_model(workspace, written, quiet=quiet)
    if model.is_reward_model and request.method != "reward":
        raise UsageError(f"--model {written} is a reward model; {request.method} tunes a language model")
    if request.method != "ppo":
        if request.reward_model:
            raise UsageError(f"--reward-model goes with train ppo, not with {request.method}")
        return model, None
    wanted = request.reward_model or early.config.model.reward_source
    if not wanted:
        raise UsageError("train ppo: name the reward model with --reward-model M (a run of workbench train reward)")
    reward = resolve_model(workspace, wanted, quiet=quiet)
    if not reward.is_reward_model:
        raise UsageError(f"--reward-model {wanted} has no reward head; name a run of: workbench train reward")
    if reward.adapter is None or reward.path.resolve() != model.path.resolve():
        raise WorkbenchError(
            f"the reward model {reward.source} does not lie as an adapter over {model.path}: policy and reward model "
            f"share one base. Train it with: workbench train reward --model {written} --set adapter.kind=lora"
        )
    return model, reward


def _typed(request: LaunchRequest, data: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """What was given by flags of its own, each under the flag's name. The model's source is resolved later."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if request.data:
        layers.append(("--data", {"data": {"names": list(data)}}))
    if request.name:
        layers.append(("--name", {"run": {"name": request.name}}))
    return layers


def _found(
    workspace: Workspace,
    run_id: str,
    model: ResolvedModel,
    reward: ResolvedModel | None,
    device: str,
    early: Resolved,
) -> dict[str, Any]:
    """The last layer: what this launch resolved. It wins over everything, so that any run.toml is a valid recipe."""
    written = model.written_in(workspace)
    empty = {"source": "", "path": "", "adapter": "", "sha256": ""}
    for key, value in (reward.written_in(workspace) if reward else empty).items():
        written[f"reward_{key}"] = value
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
        },
        "train": train,
    }


def _notes(model: ResolvedModel, reward: ResolvedModel | None) -> tuple[str, ...]:
    named = (("model", model), ("reward model", reward))
    return tuple(f"{what} {one.source}: {one.note}" for what, one in named if one is not None and one.note)


def _freeze_examples(plan: Plan, folder: RunFolder) -> dict[Split, FrozenFile]:
    files: dict[Split, FrozenFile] = {"train": FrozenFile(), "eval": FrozenFile()}
    config = plan.resolved.config
    with open(folder.data / "train.jsonl", "wb") as train, open(folder.data / "eval.jsonl", "wb") as held_out:
        streams: dict[Split, IO[bytes]] = {"train": train, "eval": held_out}
        for split, example in examples_of(plan):
            files[split].add(streams[split], example)
    if files["train"].rows == 0:
        raise DataError(
            f"{', '.join(plan.data)}: no example is left to train on for {config.run.method} "
            f"({files['eval'].rows} are held out); add data, or lower --eval-share"
        )
    return files


def examples_of(plan: Plan) -> Iterator[tuple[Split, Example]]:
    """The examples of a plan with the side each is on."""
    seed = plan.resolved.config.train.seed
    return examples_for(
        plan.workspace, plan.data, plan.resolved.config.run.method, eval_share=plan.request.eval_share, seed=seed
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
    return Resolved(replace(resolved.config, data=data), resolved.origins)
