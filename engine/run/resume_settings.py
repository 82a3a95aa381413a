"""Which settings may change when a run goes on, and the change itself.

Owns the list. Invariant: nothing in it can change the loss that is minimised, the data it is minimised on or the order
of the data; a run of other settings than these is another run, and gets a folder of its own. Everything that changed is
an event of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from engine.errors import ConfigError
from engine.run.config import SECTIONS, RunConfig, sections_of
from engine.run.config_alarms import ALARM_SECTIONS, PREFIX
from engine.run.config_layers import SET, parse_set, resolve
from engine.run.config_toml import read_config, to_toml
from engine.run.durable_files import disk_faults_named, write_atomically
from engine.run.events import append_event
from engine.run.folder import RunFolder

MAY_CHANGE = (
    "run.restarts",
    "train.tokens_per_micro_batch",
    "train.activation_checkpointing",
    "train.merged_sampling",
    "train.nonfinite_stop_after",
    "evaluation.every",
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.keep_every",
    "checkpoint.patience",
    "probe.every",
    "probe.max_share",
    "mirror.to",
    "mirror.project",
    "mirror.wandb_mode",
    *(f"{section}.{key}" for section in ALARM_SECTIONS for key in ("on_alarm", "threshold")),
)
"""Portions, guards and cadences, what alarms do and their limits. A portion changes the order in which numbers are
added up, so the last bits differ from those of a run that was left alone; the loss is the same to fp32 rounding. So it
is with the weights that rollouts are sampled from: a draw that falls between two tokens may then fall to the other."""
REASONS = {
    "train.threads": "threads add numbers up in another order in every kernel, and a run promises the same bits for "
    "the number it began with",
    "train.steps": "the length of a run decides its learning rates, also those of the steps behind it",
    "train.epochs": "the length of a run decides its learning rates, also those of the steps behind it",
}
"""Why not, for keys of which a person may think otherwise."""


def changes_of(config: RunConfig, settings: Sequence[str], run: str) -> dict[str, tuple[Any, Any]]:
    """What `--set KEY=VALUE …` would change: "section.key" -> (now, then); what is so already is left out.

    Raises ConfigError for a key that decides the loss, and points at a clone of `run`.
    """
    method = config.run.method
    before = asdict(config)
    changes = {}
    for text in settings:
        layer = parse_set(text, method)
        ((section, values),) = layer.items()
        ((key, _),) = values.items()
        name = f"{section}.{key}"
        if name not in MAY_CHANGE:
            why = REASONS.get(name, "it belongs to what decides the weights that come out")
            plain = [key for key in may_change(method) if not key.startswith(PREFIX)]
            allowed = ", ".join((*plain, f"{PREFIX}NAME.on_alarm", f"{PREFIX}NAME.threshold"))
            raise ConfigError(
                f"{SET} {text}: a run cannot go on with another {name}: {why}. It may change: {allowed}. For another "
                f"run that differs in this: workbench runs clone {run} {SET} {text}"
            )
        after = asdict(resolve(method, [(SET, layer)]).config)
        if after[section][key] != before[section][key]:
            changes[name] = (before[section][key], after[section][key])
    return changes


def may_change(method: str) -> list[str]:
    """The keys that a run of `method` may change when it goes on."""
    used = sections_of(method)
    known = {f"{section}.{key}" for section in used for key in _names(section)}
    return [name for name in MAY_CHANGE if name in known]


def _names(section: str) -> list[str]:
    return [key.name for key in fields(SECTIONS[section])]


def change_settings(folder: RunFolder, changes: dict[str, tuple[Any, Any]]) -> None:
    """Write `changes` into run.toml and record them. Raises RunFolderError where they cannot be written."""
    if not changes:
        return
    values = asdict(read_config(folder.config_path))
    for name, (_, then) in changes.items():
        section, _, key = name.partition(".")
        values[section][key] = then
    method = values["run"]["method"]
    layer = {section: values[section] for section in sections_of(method)}
    text = to_toml(resolve(method, [("run.toml", layer)]).config)
    with disk_faults_named("changing the run's settings", folder.config_path):
        write_atomically(folder.config_path, text.encode("utf-8"))
    append_event(folder, "settings_changed", changes={name: list(both) for name, both in changes.items()})
