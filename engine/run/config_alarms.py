"""The alarms of a run: for each a section of run.toml that says when it is raised and what is done then.

Owns their keys and which methods have which alarm. Invariant: the three keys mean the same in every section: what is
done, over how many readings, beyond which limit. What an alarm looks at and says is in `engine.run.alarm_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.run.config_bounds import bounded as _key

ACTIONS = ("off", "note", "checkpoint", "pause", "stop")
"""off: not looked at; note: told; checkpoint: told, with a checkpoint; pause: told, and the run ends with a checkpoint
until it is resumed; stop: as pause, but a resume must first say otherwise."""
PREFIX = "alarm_"


class AlarmSettings(Protocol):
    """What every section of an alarm holds."""

    @property
    def on_alarm(self) -> str: ...
    @property
    def window(self) -> int: ...
    @property
    def threshold(self) -> float: ...


@dataclass(frozen=True)
class KlAlarm:
    """[alarm_kl]: the KL to the reference is above its target."""

    on_alarm: str = _key("note", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(5, at_least=1)
    """Readings in a row that must be above: steps on rollouts, probes elsewhere."""
    threshold: float = _key(0.0, at_least=0)
    """Target in nats a sequence; 0: ppo.kl_target where it is steered, else 0.1 by max_new_tokens, 6 at least."""


@dataclass(frozen=True)
class KlRunawayAlarm:
    """[alarm_kl_runaway]: the KL to the reference is far beyond its target."""

    on_alarm: str = _key("pause", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(2, at_least=1)
    """Readings in a row that must be above: steps on rollouts, probes elsewhere."""
    threshold: float = _key(2.0, above=0)
    """So many times the target of alarm_kl."""


@dataclass(frozen=True)
class RewardHackingAlarm:
    """[alarm_reward_hacking]: the reward rises, and the completions turn for the worse."""

    on_alarm: str = _key("pause", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(5, at_least=2, usual="5 to 50 are usual")
    """Steps at the beginning of the run, and the latest ones, whose means are compared."""
    threshold: float = _key(0.5, above=0, below=1)
    """Share that must be lost of what completions were: variety, length (doubled is half), choices, another score."""


@dataclass(frozen=True)
class ValueAlarm:
    """[alarm_value]: the value function foresees less than a constant would."""

    on_alarm: str = _key("note", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(5, at_least=1)
    """Steps of the policy in a row that must be below; those of value_warmup do not count."""
    threshold: float = _key(0.0, below=1)
    """Explained variance of the returns."""


@dataclass(frozen=True)
class ClippingAlarm:
    """[alarm_clipping]: most of what an update asks for is clipped away."""

    on_alarm: str = _key("note", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(5, at_least=1)
    """Steps in a row that must be above."""
    threshold: float = _key(0.4, above=0, at_most=1, usual="0.05 to 0.2 is a usual share")
    """Share of ratios outside the clipping range."""


@dataclass(frozen=True)
class FlatGroupsAlarm:
    """[alarm_flat_groups]: the completions of a prompt have equal rewards, which teaches nothing."""

    on_alarm: str = _key("note", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(5, at_least=1)
    """Steps in a row that must be above."""
    threshold: float = _key(0.8, at_least=0, below=1)
    """Share of the prompts of a step whose completions have equal rewards."""


@dataclass(frozen=True)
class CutOffAlarm:
    """[alarm_cut_off]: completions do not end by themselves."""

    on_alarm: str = _key("note", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(3, at_least=1)
    """Steps in a row that must be above."""
    threshold: float = _key(0.5, at_least=0, below=1)
    """Share of the completions of a step that max_new_tokens cut off."""


@dataclass(frozen=True)
class OverfittingAlarm:
    """[alarm_overfitting]: accuracy on training pairs and on held-out pairs part."""

    on_alarm: str = _key("note", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(2, at_least=1)
    """Evaluations in a row that must be above."""
    threshold: float = _key(0.15, above=0, below=1)
    """Accuracy on the pairs trained on since the evaluation before, less the held-out accuracy."""


@dataclass(frozen=True)
class DisplacementAlarm:
    """[alarm_displacement]: the margin grows while the preferred answers become less likely."""

    on_alarm: str = _key("note", choices=ACTIONS)
    """off, note, checkpoint, pause (until it is resumed) or stop."""
    window: int = _key(5, at_least=1)
    """Steps in a row that must be above, each with a margin above 0."""
    threshold: float = _key(0.1, at_least=0)
    """Nats a token that the preferred answers must have become less likely since the start."""


ALARM_SECTIONS: dict[str, type] = {
    "alarm_kl": KlAlarm,
    "alarm_kl_runaway": KlRunawayAlarm,
    "alarm_reward_hacking": RewardHackingAlarm,
    "alarm_value": ValueAlarm,
    "alarm_clipping": ClippingAlarm,
    "alarm_flat_groups": FlatGroupsAlarm,
    "alarm_cut_off": CutOffAlarm,
    "alarm_overfitting": OverfittingAlarm,
    "alarm_displacement": DisplacementAlarm,
}
"""Section of run.toml -> its class."""

_ROLLOUTS = ("ppo", "grpo", "rloo")
_POLICY = ("sft", "dpo", "simpo", "cpo", "orpo", "kto", *_ROLLOUTS)
METHODS_WITH: dict[str, tuple[str, ...]] = {
    "alarm_kl": _POLICY,
    "alarm_kl_runaway": _POLICY,
    "alarm_reward_hacking": _ROLLOUTS,
    "alarm_value": ("ppo",),
    "alarm_clipping": _ROLLOUTS,
    "alarm_flat_groups": ("grpo", "rloo"),
    "alarm_cut_off": _ROLLOUTS,
    "alarm_overfitting": ("reward",),
    "alarm_displacement": ("dpo", "kto"),
}
"""Section -> the methods that have this alarm; in run.toml of the others it does not stand."""
