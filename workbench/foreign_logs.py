"""The numbers that other programs write while they train: trainer_state.json, TensorBoard event files, CSV.

Owns which kind a path is, where its steps, times and names are, and how a name becomes one of ours. Invariants: `rows`
is what the source says now, a row for each step; a source that is being written gives what is whole of it; what cannot
be a number of a run is left out and told in `notes`; nothing is written. Refuses to know run folders.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from workbench.errors import NotFound, UnreadableData, some_of
from workbench.event_files import PREFIX, EventFile

TRAINER_STATE = "trainer_state.json"
KINDS = {"trainer-state": "trainer_state.json", "tensorboard": "TensorBoard events", "csv": "CSV"}
_STEP_NAMES = ("step", "global_step", "_step", "trainer/global_step", "train/global_step", "steps", "iteration", "iter")
_TIME_NAMES = ("wall time", "wall_time", "_timestamp", "timestamp")
_EVAL_FOLDERS = ("eval", "validation", "val")
_FARTHEST_STEP = 2**53


@dataclass
class Row:
    """What a source says of one step."""

    time: float = 0.0
    """Unix seconds; 0 where the source does not say."""
    metrics: dict[str, float] = field(default_factory=dict)
    """By our names; may hold nan and infinities."""


Rows = dict[int, Row]


class ForeignLog(Protocol):
    """The numbers of a run of another program."""

    kind: str
    """One of KINDS."""
    path: Path
    """As it was named: a file or a folder."""
    rows: Rows
    """By step, as of the last `read`."""
    notes: tuple[str, ...]
    """What was left out of the source, and why."""
    total_steps: int
    """0 where the source does not say."""

    def read(self) -> bool:
        """Read what is new; whether anything is. Raises WorkbenchError where the source cannot be what it was."""
        ...


def open_log(path: Path) -> ForeignLog:
    """The log at `path`. Raises NotFound, or UnreadableData that says what was found and what is understood."""
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise NotFound(
            f"{path} does not exist. Name a trainer_state.json, a TensorBoard event file, a CSV file, or a folder"
        )
    if path.is_dir():
        if TrainerState.files(path):
            return TrainerState(path)
        if _event_folders(path):
            return EventFolder(path)
        raise UnreadableData(
            f"{path}: holds no trainer_state.json (here or in checkpoint-*/) and no TensorBoard event file "
            f"({PREFIX}*). It has: {some_of(sorted(os.listdir(path)))}"
        )
    if path.name.startswith(PREFIX) or ".tfevents." in path.name:
        return EventFolder(path)
    if path.suffix == ".json":
        return TrainerState(path)
    if path.suffix in (".csv", ".tsv"):
        return CsvLog(path)
    raise UnreadableData(
        f"{path.name}: its name says nothing that is understood. Expected trainer_state.json (or another .json of that "
        f"form), {PREFIX}*, .csv or .tsv; or a folder of the first two"
    )


def our_name(name: str) -> str:
    """A tag as our metrics are called: train/loss is loss, eval/loss is eval_loss; others keep their name."""
    for prefix, ours in (("train/", ""), ("eval/", "eval_"), ("validation/", "eval_")):
        if name.startswith(prefix) and name != prefix:
            return ours + name.removeprefix(prefix)
    return name


def guess_method(names: Iterable[str]) -> str:
    """Which method writes metrics of these names, by what only it has; "other" where nothing tells."""
    there = set(names)
    for method, telling in (
        ("orpo", {"log_odds_chosen"}),
        ("dpo", {"rewards/accuracies", "rewards/margins"}),
        ("kto", {"rewards/margins"}),
        ("ppo", {"objective/kl", "loss/value_avg"}),
        ("rloo", {"objective/kl", "objective/scores"}),
        ("grpo", {"reward", "completions/mean_length"}),
        ("grpo", {"reward", "reward_std"}),
        ("reward", {"accuracy", "margin"}),
        ("sft", {"loss", "mean_token_accuracy"}),
    ):
        if telling <= there:
            return method
    return "other"


class TrainerState:
    """trainer_state.json of Hugging Face's Trainer and TRL: the newest one of an output folder, or one file."""

    kind = "trainer-state"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: Rows = {}
        self.notes: tuple[str, ...] = ()
        self.total_steps = 0
        self._stamp: tuple[object, ...] = ()

    @staticmethod
    def files(path: Path) -> list[Path]:
        """The candidates below a folder: its own, and that of the checkpoint with the highest number."""
        own = [path / TRAINER_STATE] if (path / TRAINER_STATE).is_file() else []
        steps = [int(found[1]) for child in path.glob(f"checkpoint-*/{TRAINER_STATE}")
                 if (found := re.fullmatch(r"checkpoint-(\d+)", child.parent.name))]  # fmt: skip
        return own + [path / f"checkpoint-{step}" / TRAINER_STATE for step in sorted(steps)[-1:]]

    def read(self) -> bool:
        files = self.files(self.path) if self.path.is_dir() else [self.path]
        if not files:
            raise UnreadableData(f"{self.path}: its trainer_state.json is gone")
        stamp = tuple((file, *_stamp_of(file)) for file in files)
        if stamp == self._stamp:
            return False
        states = [_trainer_state(file) for file in files]
        newest = max(states, key=lambda state: _whole(state.get("global_step")) or 0)
        self._stamp = stamp
        self.total_steps = max(0, _whole(newest.get("max_steps")) or 0)
        before, self.rows, lost = self.rows, {}, 0
        for entry in newest["log_history"]:
            step = _whole(entry.get("step")) if isinstance(entry, dict) else None
            if step is None:
                lost += 1
                continue
            row = self.rows.setdefault(step, Row())
            row.metrics.update(
                {our_name(name): float(v) for name, v in entry.items() if name != "step" and type(v) in (int, float)}
            )
        self.notes = (f"{lost:,} entries of log_history have no step and were left out",) if lost else ()
        return self.rows != before


class EventFolder:
    """The event files of one run: a file, a folder of them, or a folder with train/ and validation/ of them.

    Where a later file begins at a step that earlier ones had passed, what these say from there on is void, as
    TensorBoard has it: the program was started again from an older checkpoint.
    """

    kind = "tensorboard"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: Rows = {}
        self.notes: tuple[str, ...] = ()
        self.total_steps = 0
        self._files: dict[Path, tuple[EventFile, Rows]] = {}
        self._stamps: dict[Path, tuple[int, ...]] = {}

    def read(self) -> bool:
        changed = False
        groups = {self.path.parent: [self.path]} if self.path.is_file() else _event_folders(self.path)
        if not groups:
            raise UnreadableData(f"{self.path}: its TensorBoard event files are gone")
        for folder, files in groups.items():
            prefix = "eval_" if folder != self.path and folder.name in _EVAL_FOLDERS else ""
            for file in files:
                changed = self._read_file(file, prefix) or changed
        if changed:
            self.rows = self._merged(groups)
            self.notes = tuple(file.fault for file, _ in self._files.values() if file.fault)
        return changed

    def _read_file(self, path: Path, prefix: str) -> bool:
        stamp = _stamp_of(path)
        if stamp == self._stamps.get(path):
            return False
        file, rows = self._files.get(path, (EventFile(path), {}))
        try:
            scalars = file.read()
        except UnreadableData:
            if path not in self._files:
                raise
            file, rows = EventFile(path), {}  # it was replaced
            scalars = file.read()
        self._files[path], self._stamps[path] = (file, rows), stamp
        for scalar in scalars:
            row = rows.setdefault(scalar.step, Row())
            row.time = max(row.time, scalar.time)
            name = our_name(scalar.tag)
            row.metrics[name if name.startswith("eval_") else prefix + name] = scalar.value
        return bool(scalars) or bool(file.fault)

    def _merged(self, groups: dict[Path, list[Path]]) -> Rows:
        merged: Rows = {}
        for files in groups.values():
            of_folder: Rows = {}
            for file in files:
                rows = self._files[file][1]
                if rows:
                    first = min(rows)
                    of_folder = {step: row for step, row in of_folder.items() if step < first} | rows
            for step, row in of_folder.items():
                into = merged.setdefault(step, Row())
                into.time = max(into.time, row.time)
                into.metrics.update(row.metrics)
        return {step: row for step, row in merged.items() if 0 <= step < _FARTHEST_STEP}


class CsvLog:
    """A CSV file with a line for each step, or several lines that each hold some of its numbers."""

    kind = "csv"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: Rows = {}
        self.notes: tuple[str, ...] = ()
        self.total_steps = 0
        self._stamp: tuple[int, ...] = ()

    def read(self) -> bool:
        stamp = _stamp_of(self.path)
        if stamp == self._stamp:
            return False
        lines = _csv_lines(self.path)
        names = _csv_names(lines[0] if lines else [], self.path)
        step_at = next((i for known in _STEP_NAMES for i, name in enumerate(_lower(names)) if name == known), -1)
        time_at = next((i for known in _TIME_NAMES for i, name in enumerate(_lower(names)) if name == known), -1)
        metrics = _metric_columns(names, {step_at, time_at}, self.path)
        before, self.rows, lost = self.rows, {}, 0
        filled: set[str] = set()
        for place, cells in enumerate(lines[1:], 1):
            step = _whole_text(cells[step_at]) if 0 <= step_at < len(cells) else place if step_at < 0 else None
            if step is None or len(cells) > len(names):
                lost += 1
                continue
            found = {
                name: value
                for i, name in metrics.items()
                if i < len(cells) and (value := _number(cells[i])) is not None
            }
            row = self.rows.setdefault(step, Row())
            row.metrics.update(found)
            filled |= found.keys()
            if 0 <= time_at < len(cells) and (time := _number(cells[time_at])) and time > 1e8:
                row.time = max(row.time, time)
        self.rows = {step: row for step, row in self.rows.items() if row.metrics}
        self._stamp, self.notes = stamp, _csv_notes(lost, step_at, [n for n in metrics.values() if n not in filled])
        return self.rows != before


def _csv_lines(path: Path) -> list[list[str]]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableData(f"{path}, byte {error.start:,}: not UTF-8 text. Save it as UTF-8") from error
    head = text.partition("\n")[0]
    delimiter = max("\t;,", key=head.count)
    try:
        return [cells for cells in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cells)]
    except csv.Error as error:
        raise UnreadableData(f"{path}: not readable as CSV: {error}") from error


def _csv_names(head: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in head]
    if not names:
        raise UnreadableData(f"{path}: is empty. The first line must name the columns, one of them step")
    if all(_number(name) is not None for name in names):
        raise UnreadableData(
            f"{path}, line 1: holds numbers where names of columns were expected. Add a first line of names"
        )
    if doubled := [name for place, name in enumerate(names) if name and name in names[:place]]:
        raise UnreadableData(f"{path}, line 1: two columns are called {doubled[0]!r}. Rename one")
    return names


def _metric_columns(names: list[str], others: set[int], path: Path) -> dict[int, str]:
    """Column -> metric. A TensorBoard export has one column Value, named by its file; a W&B export has RUN - METRIC
    with the least and greatest of each beside it."""
    wanted = {i: name for i, name in enumerate(names) if i not in others and name}
    if _lower(wanted.values()) == ["value"]:
        return dict.fromkeys(wanted, our_name(path.stem))
    bounds = {name + end for name in wanted.values() for end in ("__MIN", "__MAX")}
    wanted = {i: name for i, name in wanted.items() if name not in bounds}
    parts = {i: name.partition(" - ") for i, name in wanted.items()}
    runs = {head for head, dash, _ in parts.values() if dash}
    if len(runs) == 1 and all(dash for _, dash, _ in parts.values()):
        wanted = {i: metric for i, (_, _, metric) in parts.items()}
    if not wanted:
        raise UnreadableData(f"{path}: has no column beside {', '.join(names)}: there is no metric in it")
    return {i: our_name(name) for i, name in wanted.items()}


def _csv_notes(lost: int, step_at: int, empty: list[str]) -> tuple[str, ...]:
    notes = []
    if step_at < 0:
        notes.append(f"no column is called {', '.join(_STEP_NAMES[:2])} or the like, so lines are counted as steps")
    if lost:
        notes.append(f"{lost:,} lines have no whole step, or more cells than names, and were left out")
    if empty:
        notes.append(f"columns without any number were left out: {some_of(empty)}")
    return tuple(notes)


def _event_folders(path: Path) -> dict[Path, list[Path]]:
    """Folder -> its event files by age: `path` itself, or its children where these are parts of one run.

    Raises UnreadableData where below `path` there are several runs.
    """

    def files(folder: Path) -> list[Path]:
        return sorted(child for child in folder.iterdir() if ".tfevents." in child.name and child.is_file())

    if own := files(path):
        return {path: own}
    children = {child: found for child in sorted(path.iterdir()) if child.is_dir() and (found := files(child))}
    if len(children) > 1 and not all(child.name in ("train", *_EVAL_FOLDERS) for child in children):
        raise UnreadableData(
            f"{path}: holds the event files of {len(children)} runs: {some_of([child.name for child in children])}. "
            "Name one of these folders"
        )
    return children


def _trainer_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_bytes())  # not orjson: Trainer writes NaN as such
    except (ValueError, RecursionError) as error:
        raise UnreadableData(f"{path}: not readable as JSON ({error}): it is torn, or being written") from error
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise UnreadableData(f"{path}: has no list log_history: it is no trainer_state.json of Trainer or TRL")
    return dict(state)


def _stamp_of(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _whole(value: object) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < _FARTHEST_STEP else None


def _whole_text(text: str) -> int | None:
    number = _number(text)
    return None if number is None or not math.isfinite(number) else _whole(number)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _lower(names: Iterable[str]) -> list[str]:
    return [name.lower() for name in names]
