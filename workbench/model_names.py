"""What a person may write after --model, and the folder of weights it means.

    sample                       the sample model that comes with the program
    ./folder  /abs/folder  ~/x   a transformers folder, or a peft adapter folder over one
    ./file.gguf                  converted once into a safetensors folder in the user's cache
    hf:ORG/NAME[@REVISION]       from the Hugging Face Hub, through its own cache
    run:ID[@STEP|@best|@last]    a checkpoint; without @ the best where the run selects one, else the last

A bare name is `sample`, else a run (its ID, the name it was given, or a unique beginning of its ID), else a folder or
.gguf file of that name in the current folder, else the one run that is called after a model of that name because it was
given none. A name that means both a run and a file is an error that lists the spellings.

Owns that order and what is recorded of a model: source, folder, adapter, hash. Nothing is loaded here; conversion and
download happen in children. Refuses folders whose weights are pickles.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.run.folder import RunFolder
from engine.run.user_cache import user_cache_folder
from workbench.child_programs import run_program
from workbench.errors import NotFound, UsageError, WorkbenchError
from workbench.run_list import ALIVE, RESUMABLE, Run, find_run
from workbench.workspace import Workspace

ADAPTER_CONFIG = "adapter_config.json"
REWARD_HEAD = "reward_head.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
SPELLINGS = "sample, ./folder, ./file.gguf, hf:ORG/NAME[@REV], or run:ID[@STEP|@best|@last]"


@dataclass(frozen=True)
class ResolvedModel:
    """A model that was named, found."""

    source: str
    """What was meant, written out: the resolved step or revision is in it."""
    path: Path
    """The folder with config.json, safetensors and tokenizer."""
    adapter: Path | None = None
    """The peft adapter stacked on it, if any."""
    sha256: str = ""
    """Of the weights: the base's hash, or base and adapter together."""
    note: str = ""
    """What a person should know about how it was found; may be empty."""

    @property
    def is_reward_model(self) -> bool:
        """It was saved by `workbench train reward`."""
        return ((self.adapter or self.path) / REWARD_HEAD).is_file()

    def for_job(self) -> dict[str, str]:
        """As the engine's programs read it."""
        return {"path": str(self.path), "adapter": str(self.adapter) if self.adapter else ""}

    def written_in(self, workspace: Workspace) -> dict[str, str]:
        """As run.toml keeps it: paths inside the workspace are relative."""
        return {
            "source": self.source,
            "path": workspace.relative(self.path),
            "adapter": workspace.relative(self.adapter) if self.adapter else "",
            "sha256": self.sha256,
        }


def resolve_model(workspace: Workspace | None, written: str, *, quiet: bool = False) -> ResolvedModel:
    """The model that `written` means. Raises UsageError for a spelling that can never work, else WorkbenchError."""
    if not written or "\x00" in written:
        raise UsageError(f"an empty model name; expected {SPELLINGS}")
    if written == "sample":
        return _sample()
    prefix, colon, rest = written.partition(":")
    if colon and prefix == "hf":
        return _from_hub(rest, quiet)
    if colon and prefix == "url":
        raise UsageError("a model behind a URL only answers prompts: pairs make, generate, arena make, and Compare")
    if colon and prefix == "run":
        return _from_run(workspace, rest)
    if os.sep in written or written.startswith(("~", ".")):
        return _from_path(Path(written).expanduser(), written, quiet)
    return _from_bare_name(workspace, written, quiet)


def _sample() -> ResolvedModel:
    from sample_data import ROOT

    folder = ROOT / "model"
    if not (folder / "config.json").is_file():
        raise NotFound(f"the sample model is missing at {folder}; make it with: python -m sample_data.make_model")
    return ResolvedModel("sample", folder, sha256=_hash(folder))


def _from_hub(rest: str, quiet: bool) -> ResolvedModel:
    repository, at, revision = rest.partition("@")
    if (
        repository.count("/") != 1
        or not all(repository.split("/"))
        or repository.startswith("-")
        or (at and not revision)
    ):
        raise UsageError(f"hf:{rest}: expected hf:ORG/NAME or hf:ORG/NAME@REVISION")
    arguments = [repository, revision] if revision else [repository]
    found = run_program("workbench.hub_model", arguments, what=f"fetching hf:{rest}", quiet=quiet)
    folder = Path(str(found["folder"]))
    return ResolvedModel(f"hf:{repository}@{found['revision']}", folder, sha256=_hash(folder))


def _from_run(workspace: Workspace | None, rest: str) -> ResolvedModel:
    if workspace is None:
        raise NotFound(f"run:{rest} needs a workspace; give --workspace PATH")
    reference, at, which = rest.partition("@")
    if at and not (which in ("best", "last") or which.isdecimal()):
        raise UsageError(f"run:{rest}: after @ stands a step, best or last")
    return checkpoint_model(workspace, find_run(workspace, reference).id, which)


def checkpoint_model(workspace: Workspace, run_id: str, which: str = "") -> ResolvedModel:
    """A checkpoint of a run: `which` is a step, "best", "last", or "" (the best where there is one, else the last)."""
    folder = RunFolder(workspace.runs / run_id)
    steps = folder.checkpoint_steps()
    if not steps:
        raise NotFound(_no_weights(Run(folder, workspace)))
    chosen = folder.best()
    best = chosen["step"] if chosen else None
    if which == "best" or (which == "" and best is not None):
        if best is None:
            raise NotFound(f"run {run_id} selects no best checkpoint; use run:{run_id}@last")
        step, note = best, "the best checkpoint"
    elif which in ("", "last"):
        step, note = steps[-1], "the last checkpoint" if steps[-1] else "stopped before its first step: not trained"
    else:
        step, note = int(which), ""
    if step not in steps:
        raise NotFound(f"run {run_id} has no checkpoint of step {step}; there are: {', '.join(map(str, steps))}")
    checkpoint = folder.checkpoint_path(step)
    source = f"run:{run_id}@{step}"
    if not (checkpoint / ADAPTER_CONFIG).is_file():
        return ResolvedModel(source, checkpoint, sha256=_hash(checkpoint), note=note)
    base = _base_of_run(workspace, folder)
    return ResolvedModel(source, base, checkpoint, _hash(base, checkpoint), note)


def _no_weights(run: Run) -> str:
    """Why a run cannot be named as a model, and what to do."""
    state = run.state().state
    if state in ALIVE:
        return f"run {run.id} is {state} and has no checkpoint yet; wait for one: workbench runs watch {run.id}"
    again = f"Go on with it: workbench runs resume {run.id}. Or name" if state in RESUMABLE else "Name"
    return f"run {run.id} has no checkpoint, so there are no weights: {state}. {again} another: workbench models"


def _from_path(path: Path, written: str, quiet: bool) -> ResolvedModel:
    path = path.absolute()
    if path.is_file():
        return _from_gguf(path, written, quiet)
    if not path.is_dir():
        raise NotFound(f"{written}: no such folder or file; expected {SPELLINGS}")
    if (path / ADAPTER_CONFIG).is_file():
        base = _base_of_adapter(path)
        return ResolvedModel(written, base, path, _hash(base, path), f"an adapter over {base}")
    _require_model_folder(path)
    return ResolvedModel(written, path, sha256=_hash(path))


def _from_gguf(file: Path, written: str, quiet: bool) -> ResolvedModel:
    with open(file, "rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise WorkbenchError(f"{written}: not a GGUF file (it begins with {magic!r}); expected {SPELLINGS}")
    found = run_program("engine.model.gguf", [str(file), str(cache_folder())], what=f"reading {file.name}", quiet=quiet)
    folder = Path(str(found["folder"]))
    return ResolvedModel(written, folder, sha256=_hash(folder), note=f"converted to {folder}")


def cache_folder() -> Path:
    """Where converted models are kept: $XDG_CACHE_HOME/workbench/models; safe to delete."""
    return user_cache_folder() / "models"


def _from_bare_name(workspace: Workspace | None, written: str, quiet: bool) -> ResolvedModel:
    reference, _, which = written.partition("@")
    here = Path.cwd() / written
    is_file = here.is_dir() or (here.is_file() and here.suffix == ".gguf")
    run_id = None
    if workspace is not None:
        with suppress(NotFound):
            run_id = find_run(workspace, reference, by_model=not is_file).id
    if run_id is not None and is_file:
        raise UsageError(f"{written} is both a run and a file here; write run:{run_id} or ./{written}")
    if run_id is not None:
        return _from_run(workspace, f"{run_id}@{which}" if which else run_id)
    if is_file:
        return _from_path(here, f"./{written}", quiet)
    raise NotFound(f"no model named {written}: no run and no folder here has that name; expected {SPELLINGS}")


def _require_model_folder(folder: Path) -> None:
    """A transformers folder with safetensors and a tokenizer; what is missing is named."""
    if not (folder / "config.json").is_file():
        raise WorkbenchError(f"{folder} has no config.json: not a model folder; expected {SPELLINGS}")
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        if pickled:
            raise WorkbenchError(
                f"{folder} holds {pickled[0]}, a pickle, and no safetensors: pickles are refused, because loading one "
                "runs its code. Convert it: load it in transformers where you trust it, then save_pretrained"
            )
        raise WorkbenchError(f"{folder} has no safetensors weights; expected model.safetensors beside config.json")
    if not (folder / "tokenizer.json").is_file():
        raise WorkbenchError(
            f"{folder} has no tokenizer.json. Copy the tokenizer files of its base model into it (a slow tokenizer is "
            "converted by AutoTokenizer.from_pretrained(…).save_pretrained)"
        )


def _base_of_adapter(folder: Path) -> Path:
    """The base folder that an adapter names; a Hub name is refused here, since it says no revision."""
    try:
        named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, OSError) as error:
        raise WorkbenchError(f"{folder / ADAPTER_CONFIG}: cannot be read as an adapter's config ({error})") from error
    base = Path(str(named))
    base = base if base.is_absolute() else folder / base
    if not base.is_dir():
        raise NotFound(
            f"{folder} is an adapter over {named}, which is not a folder here; set base_model_name_or_path in its "
            f"{ADAPTER_CONFIG} to the base model's folder"
        )
    _require_model_folder(base)
    return base


def _base_of_run(workspace: Workspace, folder: RunFolder) -> Path:
    from engine.run.config_toml import read_config

    base = workspace.resolve(read_config(folder.config_path).model.path)
    if not (base / "config.json").is_file():
        raise NotFound(f"run {folder.path.name} was trained over {base}, which is not there any more; put it back")
    return base


def _hash(folder: Path, adapter: Path | None = None) -> str:
    from engine.model.fingerprint import folder_sha256

    base: str = folder_sha256(folder)
    if adapter is None:
        return base
    return hashlib.sha256(f"{base} {folder_sha256(adapter)}".encode()).hexdigest()
