"""Settings that mean nothing beside another one: which, and which other one it is.

Owns the table. What a default or a whole run.toml holds of them is no fault, so no config is refused for it when it is
read; a launch refuses what a person has asked for twice (`refuse_idle`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.errors import ConfigError
from engine.run.config import RunConfig
from engine.run.config_layers import Resolved, shown

WRITTEN, TYPED = 1, 2
"""How lately a value was chosen: in a recipe, or on the command line. One that nobody chose is in neither."""


class Rule(NamedTuple):
    """Keys that are idle where another one has such a value."""

    keys: tuple[str, ...]
    by: str
    where: Callable[[Any], bool]
    because: str
    otherwise: str
    """What to set for the keys to count."""


_OF_ADAPTERS = tuple(f"adapter.{name}" for name in ("r", "alpha", "dropout", "rslora", "dora", "targets"))
RULES = (
    Rule(
        ("optim.warmup_share",),
        "optim.warmup_steps",
        lambda steps: steps > 0,
        "the warm-up is counted in steps",
        "set optim.warmup_steps=0",
    ),
    Rule(
        ("train.epochs",),
        "train.steps",
        lambda steps: steps > 0,
        "the run is as long as its steps",
        "set train.steps=0",
    ),
    Rule(
        _OF_ADAPTERS,
        "adapter.kind",
        lambda kind: kind == "full",
        "all weights train, and there is no adapter",
        "take adapter.kind=lora",
    ),
    Rule(
        ("optim.decay_share",),
        "optim.schedule",
        lambda schedule: schedule != "wsd",
        "only wsd has a decay of its own",
        "take optim.schedule=wsd",
    ),
    Rule(
        ("optim.min_lr_share",),
        "optim.schedule",
        lambda schedule: schedule == "constant",
        "a constant rate does not fall",
        "take another optim.schedule",
    ),
)


def idle_settings(value_of: Callable[[str], Any]) -> dict[str, Rule]:
    """Key -> why it means nothing, for the value that `value_of` gives to each "section.key"."""
    return {key: rule for rule in RULES if rule.where(value_of(rule.by)) for key in rule.keys}


def value_in(config: RunConfig, key: str) -> Any:
    """The value of "section.key"."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def refuse_idle(resolved: Resolved, chosen: Mapping[str, int]) -> None:
    """Raises ConfigError where a person chose a setting and something that makes it idle, and not the latter later.

    `chosen`: "section.key" -> WRITTEN or TYPED. What was typed overrules what was written without a word.
    """
    for key, rule in idle_settings(lambda name: value_in(resolved.config, name)).items():
        if key not in chosen or chosen[key] < chosen.get(rule.by, 0):
            continue
        section, _, name = key.partition(".")
        other = f"{rule.by} = {shown(value_in(resolved.config, rule.by))} ({resolved.origins[rule.by]})"
        raise ConfigError(
            f"{resolved.origins[key]}: [{section}] {name} = {shown(value_in(resolved.config, key))}: means nothing "
            f"beside {other}: {rule.because}. Leave {key} out, or {rule.otherwise}"
        )
