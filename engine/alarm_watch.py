"""The alarms of a run while it trains: what they hear, what they tell, and which checkpoint they spare.

Owns the carrying out of `on_alarm`, but for the checkpoint and the end themselves, which are the loop's. Invariants: an
alarm is told once for each onset, also where a kill makes the same steps run again; nothing here changes what is
trained; the newest checkpoint from before what an alarm that acts could blame is always there. The leading process
judges, for all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine.ranks import leaders_word, leads
from engine.reporting import Reporter
from engine.run.alarm_rules import BY_NAME, RULES, limits_of, settings_of
from engine.run.alarm_standing import Raised, Standing, advance, first_to_blame
from engine.run.config import RunConfig
from engine.run.config_alarms import ACTIONS
from engine.run.durable_files import write_atomically
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.safe_text import safe

ENDS = ("pause", "stop")


@dataclass(frozen=True)
class Heard:
    """What is to be done after a step."""

    alarm: str = ""
    """The alarm that asks for the most; empty where none was raised."""
    action: str = "off"

    @property
    def checkpoint(self) -> bool:
        """A checkpoint is asked for."""
        return self.action in ("checkpoint", *ENDS)

    @property
    def ends(self) -> bool:
        """The run is to end here."""
        return self.action in ENDS


class AlarmWatch:
    """The alarms of one run. `saved` is what their standing was in a checkpoint; it is kept up to date in place."""

    def __init__(self, config: RunConfig, folder: RunFolder, reporter: Reporter, saved: dict[str, Any]) -> None:
        self._folder = folder
        self._reporter = reporter
        self._method = config.run.method
        self._saved = saved
        self._watched = [(rule, limits) for rule in RULES if (limits := limits_of(rule, config)) is not None]
        self._actions = {rule.name: settings_of(rule, config).on_alarm for rule, _ in self._watched}
        self._standing = {
            rule.name: Standing.of_json(saved[rule.name]) if rule.name in saved else Standing()
            for rule, _ in self._watched
        }
        self._told = told_before(folder) if leads() else {}
        saved.clear()
        self._keep()

    def hear(self, step: int, metrics: Mapping[str, float]) -> Heard:
        """Judge the metrics of `step`, tell what is raised by them, and say what is to be done."""
        heard = Heard()
        if leads():
            for rule, limits in self._watched:
                self._standing[rule.name], raised = advance(rule, limits, self._standing[rule.name], step, metrics)
                if raised is not None:
                    heard = max(heard, self._raise(raised), key=lambda one: ACTIONS.index(one.action))
            self._keep()
        return Heard(*leaders_word([heard.alarm, heard.action]))

    def spare_before(self) -> list[int]:
        """The newest checkpoint before each of these steps is to be kept: an alarm that acts may come to blame what
        follows it."""
        blamed = [
            first_to_blame(rule, limits, self._standing[rule.name])
            for rule, limits in self._watched
            if self._actions[rule.name] != "note"
        ]
        return [step for step in blamed if step is not None]

    def _raise(self, raised: Raised) -> Heard:
        """Tell an alarm, once for each onset; what is left to do about it."""
        name = raised.rule.name
        action = self._actions[name]
        carried_out = self._told.get((name, raised.onset))
        if carried_out is None:
            self._told[name, raised.onset] = False
            title = f"alarm {name} at step {raised.step}: {raised.rule.title}"
            print(safe(f"{title}: {raised.what}"), file=sys.stderr, flush=True)  # a line in engine.log
            self._reporter.event(
                "alarm",
                alarm=name,
                step=raised.step,
                onset=raised.onset,
                action=action,
                window=raised.limits.window,
                threshold=raised.limits.threshold,
                what=f"{raised.rule.title}: {raised.what}",
                explanation=raised.rule.explanation,
                remedy=raised.rule.remedy_for(self._method),
                kept_checkpoint=None if action == "note" else self._protect(raised.onset),
            )
        return Heard() if carried_out else Heard(name, action)

    def _protect(self, onset: int) -> int | None:
        """Mark the newest checkpoint before `onset` as needed; its step, or None where there is none."""
        before = [step for step in self._folder.checkpoint_steps() if step < onset]
        if not before:
            return None
        with suppress(OSError):  # a full disk is the next checkpoint's to tell
            write_atomically(self._folder.needed_path(before[-1]), b"", durable=False)
        return before[-1]

    def _keep(self) -> None:
        self._saved.update({name: standing.as_json() for name, standing in self._standing.items()})
        self._reporter.status(alarm=standing_words(self._standing, self._method))


def standing_words(standing: Mapping[str, Standing], method: str) -> str:
    """Which alarms stand, since when and what to do; empty where none does."""
    stand = [
        f"{BY_NAME[name].title} since step {one.onset} ({name}). {BY_NAME[name].remedy_for(method)}"
        for name, one in standing.items()
        if one.onset is not None
    ]
    return " ".join(stand)


def told_before(folder: RunFolder) -> dict[tuple[str, int], bool]:
    """(alarm, onset) of what earlier attempts have told, and whether what it asked for was done."""
    told: dict[tuple[str, int], bool] = {}
    for event in read_events(folder):
        name, onset = event.get("alarm"), event.get("onset")
        if event["kind"] == "alarm" and isinstance(name, str) and isinstance(onset, int):
            told[name, onset] = event.get("action") not in ENDS
        elif event["kind"] == "stopped" and name is not None:
            told.update({key: True for key in told if key[0] == name})
    return told
