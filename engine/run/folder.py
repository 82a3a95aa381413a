"""The layout of a run folder: which file lies where, and how a new one comes into being.

    runs/ID/  run.toml  chat_template.jinja  rewards/  data/  status.json  metrics.jsonl  samples.jsonl  events.jsonl
              engine.log  control/  checkpoints/step-000200/  best.json  supervisor.lock  tree.lock

Owns names and modes (folders 0700, files 0600). Invariant: run.toml is written last, so a folder that has it is whole.
Refuses to know what is inside the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from engine.errors import RunFolderError
from engine.run.durable_files import disk_faults_named, read_json_object, write_atomically

MANIFEST = "MANIFEST.json"
_STEP = re.compile(r"step-(\d{6,})")


class RunFolder:
    """Paths of one run. Making the object touches nothing on the disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def id(self) -> str:
        """The run's ID, which is the name of its folder."""
        return self.path.name

    @property
    def config_path(self) -> Path:
        """run.toml: the complete config."""
        return self.path / "run.toml"

    @property
    def status_path(self) -> Path:
        """status.json: phase, step, heartbeat, last error; replaced atomically."""
        return self.path / "status.json"

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl: one line per step; the last attempt of a step counts."""
        return self.path / "metrics.jsonl"

    @property
    def samples_path(self) -> Path:
        """samples.jsonl: completions of probes and rollouts."""
        return self.path / "samples.jsonl"

    @property
    def events_path(self) -> Path:
        """events.jsonl: what happened, in order."""
        return self.path / "events.jsonl"

    @property
    def log_path(self) -> Path:
        """engine.log: stdout and stderr of every process."""
        return self.path / "engine.log"

    @property
    def control(self) -> Path:
        """Requests from outside."""
        return self.path / "control"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoint folders."""
        return self.path / "checkpoints"

    @property
    def data(self) -> Path:
        """The frozen training and evaluation examples."""
        return self.path / "data"

    @property
    def chat_template_path(self) -> Path:
        """chat_template.jinja: how conversations are rendered, as it was at launch."""
        return self.path / "chat_template.jinja"

    @property
    def rewards(self) -> Path:
        """Copies of the files of Python reward functions, as they were at launch; only where the run has any."""
        return self.path / "rewards"

    def in_workspace(self, path: str) -> Path:
        """A path of run.toml: absolute, or relative to the workspace that holds the run."""
        given = Path(path)
        return given if given.is_absolute() else self.path.parent.parent / given

    @property
    def lock_path(self) -> Path:
        """Held by the supervisor alone."""
        return self.path / "supervisor.lock"

    @property
    def tree_lock_path(self) -> Path:
        """Held by the worker and all that descends from it."""
        return self.path / "tree.lock"

    @property
    def follow_lock_path(self) -> Path:
        """Of an imported run: held by who reads its source on. No queue and no GPU waits for it."""
        return self.path / "follow.lock"

    @property
    def reserve_path(self) -> Path:
        """Space that is given up when the disk is full, so that the run can still say so."""
        return self.path / ".reserve"

    @property
    def meeting_path(self) -> Path:
        """Where the processes that train together find each other; of one attempt only."""
        return self.path / ".ranks"

    @property
    def best_path(self) -> Path:
        """best.json: the best checkpoint by the run's selection metric."""
        return self.path / "best.json"

    @classmethod
    def create(cls, path: Path, config_toml: str, fill: Callable[[RunFolder], None] | None = None) -> RunFolder:
        """Make the folder of a new run; `fill` may put its data in before run.toml makes it whole.

        An occupied path is refused. Where anything fails, the folder is taken away again.
        """
        folder = cls(path)
        with disk_faults_named("creating a run", path):
            try:
                path.mkdir(mode=0o700)
            except FileExistsError as error:
                raise RunFolderError(f"{path} exists: a run never takes an occupied name. Choose another") from error
            try:
                folder.lay_out(config_toml, fill)
            except BaseException:
                import shutil

                shutil.rmtree(path, ignore_errors=True)
                raise
        return folder

    def lay_out(self, config_toml: str, fill: Callable[[RunFolder], None] | None = None) -> None:
        """Make a run of this folder, which exists and is empty: subfolders, data, and last run.toml."""
        with disk_faults_named("creating a run", self.path):
            for inner in (self.control, self.checkpoints, self.data):
                inner.mkdir(mode=0o700, exist_ok=True)
            if fill is not None:
                fill(self)
            write_atomically(self.config_path, config_toml.encode("utf-8"))

    def checkpoint_steps(self) -> list[int]:
        """Steps of the checkpoints that are sealed by a manifest, ascending. Their files are not verified here."""
        try:
            names = os.listdir(self.checkpoints)
        except (FileNotFoundError, NotADirectoryError):
            return []
        steps = [int(found[1]) for name in names if (found := _STEP.fullmatch(name))]
        return sorted(step for step in steps if (self.checkpoint_path(step) / MANIFEST).exists())

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies, whether it exists or not."""
        return self.checkpoints / f"step-{step:06d}"

    def needed_path(self, step: int) -> Path:
        """A mark beside the checkpoints: another run was made over the weights of `step`, so that they are kept."""
        return self.checkpoints / f"needed-{step:06d}"

    def write_best(self, best: Mapping[str, Any]) -> None:
        """Record {"step", "metric", "value"} of the best checkpoint."""
        with disk_faults_named("recording the best checkpoint", self.best_path):
            write_atomically(self.best_path, orjson.dumps({"schema": 1, **best}, option=orjson.OPT_INDENT_2) + b"\n")

    def best(self) -> dict[str, Any] | None:
        """{"step", "metric", "value"} of the best checkpoint, or None where there is none (any more)."""
        best = read_json_object(self.best_path)
        if best is None or not isinstance(best.get("step"), int):
            return None
        if not (self.checkpoint_path(best["step"]) / MANIFEST).exists():
            return None
        return {key: best.get(key) for key in ("step", "metric", "value")}
