"""Copies of a run's numbers for TensorBoard, Weights & Biases and Trackio.

    python -m engine.run.mirror RUN_DIR TARGET

A process of its own for each target, which the supervisor starts and forgets: it reads metrics.jsonl as any viewer
does, so the file is its queue, training never waits for it, and what it falls behind is not lost. Invariants: it holds
no lock and no GPU of the run; whatever goes wrong in it is one event of the run and its own end; it ends by itself once
the run has ended and everything is handed on; when the run goes on later, so does the copy, from where it was. Names
are those under which Trainer and TRL log: train/loss, eval/loss.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import orjson

from engine.errors import EngineError
from engine.run.config import RunConfig
from engine.run.config_toml import read_config
from engine.run.durable_files import read_json_object, write_atomically
from engine.run.event_file_writer import EventFileWriter
from engine.run.events import append_event
from engine.run.folder import RunFolder
from engine.run.locks import HeldLock, hold, is_held
from engine.run.metric_names import HELD_OUT

POLL_S = 0.5
TAKE_OVER_S = 30.0
"""So long a process waits for the one of before the run went on to end; one that does not end reads on by itself."""
_STARTED: list[subprocess.Popen[bytes]] = []
_NONFINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


class Target(Protocol):
    """Where numbers are handed on to."""

    def write(self, step: int, when: float, scalars: Mapping[str, float]) -> None:
        """One step; `when` in Unix seconds. The same step may come again, with the values of a later attempt."""

    def close(self) -> None:
        """Everything was handed on, for now."""


def missing_packages(config: RunConfig) -> list[str]:
    """What must be installed for the mirrors of a run, and is not."""
    return [target for target in config.mirror.to if target != "tensorboard" and find_spec(target) is None]


def start_mirrors(folder: RunFolder, config: RunConfig, working_folder: Path) -> None:
    """Start the processes of a run's mirrors. One that cannot be started is an event."""
    for target in dict.fromkeys(config.mirror.to):
        command = [sys.executable, "-m", "engine.run.mirror", str(folder.path), target]
        try:
            with open(folder.log_path, "ab") as log:
                started = subprocess.Popen(
                    command, cwd=working_folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            _STARTED.append(started)
        except OSError as error:
            _failed(folder, target, error)


def mirror(folder: RunFolder, name: str, target: Target, alive: Callable[[], bool], *, poll_s: float = POLL_S) -> int:
    """Hand on what is in metrics.jsonl, from where an earlier process was, until the run has ended; how many steps."""
    place = folder.path / f".mirror-{name}.json"
    offset, handed_on = int((read_json_object(place) or {}).get("offset", 0)), 0
    try:
        while True:
            last = not alive()  # asked before reading: what was written until then is read
            lines, offset = _lines_from(folder.metrics_path, offset)
            for line in lines:
                target.write(line["step"], float(line.get("time") or 0.0), _scalars(line))
            if lines:
                handed_on += len(lines)
                write_atomically(place, orjson.dumps({"schema": 1, "offset": offset}), durable=False)
            if last:
                return handed_on
            time.sleep(poll_s)
    finally:
        target.close()


def open_target(name: str, folder: RunFolder, config: RunConfig) -> Target:
    """The writer of a target. Raises whatever its package raises."""
    makers: dict[str, Callable[[RunFolder, RunConfig], Target]] = {
        "tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio,
    }  # fmt: skip
    return makers[name](folder, config)


class _TensorBoard:
    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        self._writer = EventFileWriter(folder.path / "tensorboard", time.time())

    def write(self, step: int, when: float, scalars: Mapping[str, float]) -> None:
        self._writer.write(step, when, scalars)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        import wandb

        self._run = wandb.init(
            project=config.mirror.project, name=folder.id, id=folder.id, dir=str(folder.path), config=_facts(config),
            mode=config.mirror.wandb_mode, resume="allow",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )  # fmt: skip
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")  # W&B's own steps may only go up

    def write(self, step: int, when: float, scalars: Mapping[str, float]) -> None:
        self._run.log({**scalars, "step": step})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        import trackio

        self._run = trackio.init(
            project=config.mirror.project, name=folder.id, config=_facts(config), resume="allow", embed=False
        )

    def write(self, step: int, when: float, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


def _facts(config: RunConfig) -> dict[str, Any]:
    """run.toml as plain values; it holds no secret."""
    return dict(asdict(config))


def _scalars(line: Mapping[str, Any]) -> dict[str, float]:
    kinds = line.get("nonfinite")
    broken = {name: _NONFINITE[kind] for name, kind in kinds.items()} if isinstance(kinds, dict) else {}
    found = {name: float(value) for name, value in line["metrics"].items() if type(value) in (int, float)}
    return {logged_name(name): value for name, value in {**found, **broken}.items()}


def logged_name(name: str) -> str:
    """eval_loss is logged as eval/loss, every other name below train/."""
    return f"eval/{name.removeprefix(HELD_OUT)}" if name.startswith(HELD_OUT) else f"train/{name}"


def _lines_from(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of steps behind `offset`, and where they end; a file that became shorter is read anew."""
    try:
        with open(path, "rb") as stream:
            if stream.seek(0, 2) < offset:
                offset = 0
            stream.seek(offset)
            content = stream.read()
    except FileNotFoundError:
        return [], 0
    end = content.rfind(b"\n") + 1
    lines = []
    for text in content[:end].split(b"\n"):
        try:
            line = orjson.loads(text) if text else None
        except orjson.JSONDecodeError:
            continue
        if isinstance(line, dict) and type(line.get("step")) is int and isinstance(line.get("metrics"), dict):
            lines.append(line)
    return lines, offset + end


def _failed(folder: RunFolder, target: str, error: BaseException) -> None:
    remedy = f"pip install 'workbench[{target}]'; it goes on when the run is resumed"
    what = remedy if isinstance(error, ModuleNotFoundError) else "see engine.log"
    with suppress(EngineError):  # a full disk: the run itself meets it and tells it
        append_event(folder, "mirror_failed", to=target, what=f"{type(error).__name__}: {error}"[:500], remedy=what)


def _take_over(folder: RunFolder, name: str) -> HeldLock | None:
    """The lock of this mirror, once an earlier process has let go of it; None where that one reads on."""
    until = time.monotonic() + TAKE_OVER_S
    while (lock := hold(folder.path / f".mirror-{name}.lock")) is None and time.monotonic() < until:
        time.sleep(POLL_S)
    return lock


def main(argv: list[str]) -> int:
    """One mirror of one run, as a program."""
    folder, name = RunFolder(argv[0]), argv[1]
    lock = _take_over(folder, name)
    if lock is None:
        return 0
    try:
        config = read_config(folder.config_path)
        target = open_target(name, folder, config)
        append_event(folder, "mirror", to=name)
        mirror(folder, name, target, lambda: is_held(folder.lock_path))
    except Exception as error:
        import traceback

        traceback.print_exc()
        _failed(folder, name, error)
        return 1
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
