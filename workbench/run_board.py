"""The runs of a workspace as a board to look at: one entry each, with its model, data, pace and main figure.

Owns what an entry says and which figure is a run's main one. Invariants: it only reads; a config that did not change
since the last look is not read again; a damaged run is an entry that says so.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import EngineError
from engine.run.config import RunConfig
from engine.run.reference_policy import reference_words
from workbench.data_weights import as_written
from workbench.run_clone import as_typed, changed_settings
from workbench.run_list import ALIVE, RESUMABLE, Run, RunSummary, all_runs, summarise
from workbench.run_watch import SHOWN, main_figure
from workbench.terminal_output import counted, duration, local_time, number
from workbench.workspace import Workspace

LOG_BYTES = 200_000
LOG_LINES = 400


@dataclass(frozen=True)
class BoardEntry:
    """One run."""

    summary: RunSummary
    model: str
    data: str
    settings: tuple[tuple[str, str], ...]
    """What departs from the defaults, as typed."""
    rows: str
    """Rows trained on and held out, in words."""
    checkpoints: tuple[int, ...]
    main: str
    """Last value of the main metric, with its name."""
    reference: str = ""
    """What its KL, and the loss of DPO, are measured against, in words."""
    imported: str = ""
    """KIND:PATH of the log that its numbers are read from, where another program trains it; then no setting is known.
    """

    @property
    def id(self) -> str:
        return self.summary.id

    @property
    def alive(self) -> bool:
        return self.summary.state in ALIVE

    @property
    def resumable(self) -> bool:
        return self.summary.state in RESUMABLE

    @property
    def how_far(self) -> str:
        """step/total and the share done."""
        step, total = self.summary.step, self.summary.total_steps
        if not total:
            return f"{step:,}" if step else "–"
        return f"{step:,}/{total:,} {100 * step / total:3.0f} %"

    @property
    def pace(self) -> str:
        """Speed of late; only of a run that goes on."""
        rate = self.summary.steps_per_s if self.alive else None
        if not rate:
            return ""
        return f"{number(rate, 2)}/s" if rate >= 1 else f"{number(1 / rate, 2)} s each"

    @property
    def left(self) -> str:
        return duration(self.summary.seconds_left) if self.summary.seconds_left is not None else ""


def _settings(entry: BoardEntry) -> str:
    return ", ".join(f"{key}={value}" for key, value in entry.settings) or "all defaults"


class BoardReader:
    """Looks at the runs again and again; the configs of known runs are not read twice."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._configs: dict[str, tuple[tuple[int, int], RunConfig | None]] = {}

    def look(self) -> tuple[BoardEntry, ...]:
        """Every run, the newest first."""
        return tuple(self._entry(run) for run in reversed(all_runs(self.workspace)))

    def _entry(self, run: Run) -> BoardEntry:
        try:
            summary = summarise(run)
        except (EngineError, OSError) as error:  # it was torn, or removed, while it was read
            summary = _unreadable(run, str(error))
        config = self._config(run)
        if config is None:
            return BoardEntry(summary, "", "", (), "", tuple(run.checkpoint_steps()), "")
        if config.run.imported:
            imported, steps = config.run.imported, tuple(run.checkpoint_steps())
            return BoardEntry(summary, "imported", "", (), "", steps, main_figure(summary), imported=imported)
        changed = tuple((key, as_typed(value)) for key, value in changed_settings(config).items())
        return BoardEntry(
            summary=summary,
            model=config.model.source,
            data=", ".join(as_written(config.data)),
            settings=changed,
            rows=f"{counted(config.data.train_rows, 'row')}, {config.data.eval_rows:,} held out",
            checkpoints=tuple(run.checkpoint_steps()),
            main=main_figure(summary),
            reference=reference_words(config),
        )

    def _config(self, run: Run) -> RunConfig | None:
        try:
            found = os.stat(run.folder.config_path)
            signature = (found.st_size, found.st_mtime_ns)
            kept = self._configs.get(run.id)
            if kept is None or kept[0] != signature:
                kept = self._configs[run.id] = (signature, _read(run))
            return kept[1]
        except OSError:
            return None


def describe_entry(entry: BoardEntry) -> tuple[tuple[str, str], ...]:
    """(name, value) of all that is known of a run, for a person."""
    summary = entry.summary
    best = summary.best
    found = {
        "state": summary.state + (f": {summary.reason}" if summary.reason else ""),
        "alarm": summary.alarm,
        "model": "" if entry.imported else entry.model,
        "imported": entry.imported,
        "data": f"{entry.data}: {entry.rows}" if entry.data else "",
        "reference": entry.reference,
        "best": f"{best.get('metric')} {number(best.get('value'), 4)} at step {best.get('step')}" if best else "",
        "checkpoints": f"step {', '.join(map(str, entry.checkpoints))}" if entry.checkpoints else "none",
        "settings": "" if entry.imported else _settings(entry),
        "last": ", ".join(
            f"{name} {number(summary.last[name])}" for name in SHOWN.get(summary.method, ()) if name in summary.last
        ),
        "note": summary.note,
        "tags": ", ".join(summary.tags),
        "device": summary.device,
        "created": local_time(summary.created) if summary.created else "",
    }
    return tuple((name, value) for name, value in found.items() if value)


def log_tail(run: Run, lines: int = LOG_LINES) -> Sequence[str]:
    """The last lines of a run's log, read from its end."""
    try:
        with open(run.folder.log_path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
            content = log.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(deque(content.split("\n")[: -1 if content.endswith("\n") else None], maxlen=lines))


def _read(run: Run) -> RunConfig | None:
    try:
        return run.config()
    except EngineError:
        return None


def _unreadable(run: Run, reason: str) -> RunSummary:
    return RunSummary(run.id, run.method, run.name, "", "damaged", reason, 0, 0, None, None, "", {}, None)
