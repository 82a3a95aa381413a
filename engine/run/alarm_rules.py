"""The table of alarms: what each looks at, the limit it is held against, what it means and what to do.

Owns the rules and their words. What is read off a run's metrics is `engine.run.alarm_readings`', when a reading becomes
an alarm is `engine.run.alarm_standing`'s. Torch-free: the engine judges by it, the command line and the screens explain
by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.run.alarm_readings import (
    LATEST_STEPS,
    Measure,
    Measured,
    Row,
    accuracy_gap,
    both_ends,
    displacement,
    explained_variance,
    first_of,
    share_lost,
)
from engine.run.config import RunConfig
from engine.run.config_alarms import METHODS_WITH, PREFIX, AlarmSettings
from engine.run.method_names import ON_ROLLOUTS

NATS_A_TOKEN, LEAST_NATS = 0.1, 6.0
"""The target of a KL that is not steered: so much for each token that a completion may have, and not less than that."""


@dataclass(frozen=True)
class Limits:
    """What the readings of one run are held against."""

    window: int
    threshold: float
    """In the unit of the value; for the KL in nats a sequence, whatever was set."""


@dataclass(frozen=True)
class AlarmRule:
    """One alarm."""

    name: str
    """reward_hacking …: its section of run.toml is alarm_NAME."""
    title: str
    """What is the matter, in a few words."""
    metrics: tuple[str, ...]
    """Names it reads, of whatever method; one that ends in / stands for all names that begin so."""
    measure: Measure
    value: str
    """What its value is, as the subject of a sentence."""
    unit: str
    """Of the value, behind the number; may be empty."""
    explanation: str
    """Why that matters."""
    remedy: str
    """What to do; {method} stands for the method, {nearer} for what keeps its policy nearer."""
    above: bool = True
    """Whether the value must be above the threshold, or below."""
    in_a_row: bool = True
    """Raised once `window` readings in a row are beyond the threshold; else by the first, which is of a window."""
    readings: str = "steps"
    """What gives a reading."""
    kept: Callable[[Sequence[Row], int], Sequence[Row]] = lambda rows, window: ()
    """(rows so far, window) -> those that later readings need."""

    @property
    def section(self) -> str:
        """Its section of run.toml."""
        return PREFIX + self.name

    @property
    def methods(self) -> tuple[str, ...]:
        """Who has it."""
        return METHODS_WITH[self.section]

    def remedy_for(self, method: str) -> str:
        """What to do in a run of `method`."""
        held_by = {"sft": "", "cpo": "cpo.sft_coef"} | {one: f"{one}.kl_coef" for one in ON_ROLLOUTS}
        key = held_by.get(method, f"{method}.beta")
        nearer = f"a larger {key} or a smaller optim.lr" if key else "a smaller optim.lr or fewer steps"
        return self.remedy.format(method=method, nearer=nearer)

    def takes(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Those of a step's metrics that it reads; what is no finite number is left out."""
        return {name: value for name, value in metrics.items() if self._reads(name) and math.isfinite(value)}

    def beyond(self, found: Measured, limits: Limits) -> bool:
        """Whether a reading is on the wrong side of the threshold."""
        wrong = found.value > limits.threshold if self.above else found.value < limits.threshold
        return found.certain and wrong

    def _reads(self, name: str) -> bool:
        return any(name.startswith(one) if one.endswith("/") else name == one for one in self.metrics)


def settings_of(rule: AlarmRule, config: RunConfig) -> AlarmSettings:
    """The section of an alarm."""
    found: AlarmSettings = getattr(config, rule.section)
    return found


def limits_of(rule: AlarmRule, config: RunConfig) -> Limits | None:
    """What the alarm is held against in this run; None where it is off, or has nothing to be held against."""
    settings = settings_of(rule, config)
    if config.run.method not in rule.methods or settings.on_alarm == "off":
        return None
    if rule.name == "flat_groups" and config.run.method == "rloo" and config.rloo.generations < 2:
        return None  # a single completion is equal to itself
    target = kl_target(config)
    if rule.name == "kl":
        return None if target is None else Limits(settings.window, target)
    if rule.name == "kl_runaway":
        return None if target is None else Limits(settings.window, target * settings.threshold)
    return Limits(settings.window, settings.threshold)


def kl_target(config: RunConfig) -> float | None:
    """Nats a sequence that the KL to the reference should stay below; None where nobody has said so.

    What alarm_kl.threshold says; else the target that PPO steers to; else, on rollouts, NATS_A_TOKEN for each token
    that a completion may have, LEAST_NATS at least.
    """
    method = config.run.method
    if config.alarm_kl.threshold > 0:
        return config.alarm_kl.threshold
    if method not in ON_ROLLOUTS:
        return None
    if method == "ppo" and config.ppo.kl_control == "adaptive":
        return config.ppo.kl_target
    longest: int = getattr(config, method).max_new_tokens
    return max(LEAST_NATS, NATS_A_TOKEN * longest)


_KL = first_of("objective/kl", "kl/policy_reference_nats_per_sequence")
_OF_KL = ("objective/kl", "kl/policy_reference_nats_per_sequence")
_GO_BACK = "Look at samples.jsonl, and go back to a checkpoint from before it"

RULES: tuple[AlarmRule, ...] = (
    AlarmRule(
        "kl", "KL above its target", _OF_KL, _KL, "the KL to the reference", "nats a sequence",
        "The policy moves away from the reference further than was meant: what it gains in reward there, the reward "
        "model was never asked about.",
        "Clone the run with {nearer}; where so large a KL is meant, resume with --set "
        "alarm_kl.threshold=NATS.",
    ),
    AlarmRule(
        "kl_runaway", "KL far beyond its target", _OF_KL, _KL, "the KL to the reference", "nats a sequence",
        "The policy has left the reference; further steps rarely bring it back.",
        f"{_GO_BACK}: clone the run with {{nearer}}. Where so large a KL is meant, resume "
        "with --set alarm_kl.threshold=NATS.",
    ),
    AlarmRule(
        "reward_hacking", "the reward rises and the completions get worse",
        (
            "objective/raw_scores", "reward", "objective/response_length", "completions/mean_length",
            "completions/distinct_bigrams", "completions/repeated_trigrams", "objective/entropy", "entropy", "rewards/",
        ),
        share_lost, "the share lost", "",
        "What the policy has found may please the reward model alone: reward models like long and repeated answers, "
        "and none knows completions that it was not trained on.",
        f"{_GO_BACK}: clone the run with a larger {{method}}.kl_coef, or train the reward model on pairs that show "
        "what went wrong. Where the change is meant, resume: it is not raised again for the same onset.",
        in_a_row=False, kept=both_ends,
    ),
    AlarmRule(
        "value", "the value function foresees nothing", ("val/explained_variance", "loss/policy_avg"),
        explained_variance, "the explained variance of the returns", "",
        "Advantages are taken against the value; one that is worse than a constant adds noise to every update.",
        "Clone the run with a longer ppo.value_warmup, with ppo.value_model = adapter, or with another ppo.value_lr "
        "(larger where loss/value_avg still falls, smaller where it jumps).",
        above=False,
    ),
    AlarmRule(
        "clipping", "most of the updates is clipped away", ("policy/clipfrac_avg", "clip_ratio/region_mean"),
        first_of("policy/clipfrac_avg", "clip_ratio/region_mean"), "the share of clipped ratios", "",
        "The policy leaves the one that made the rollouts within a single step, and tokens that are clipped teach "
        "nothing any more.",
        "Clone the run with a smaller optim.lr, or with fewer {method}.epochs or {method}.minibatches.",
    ),
    AlarmRule(
        "flat_groups", "groups without spread", ("frac_reward_zero_std",), first_of("frac_reward_zero_std"),
        "the share of prompts whose completions have equal rewards", "",
        "Where all completions of a prompt have the same reward, none is better than another and the prompt teaches "
        "nothing.",
        "Clone the run with a higher {method}.temperature or more {method}.generations, with prompts that are neither "
        "too easy nor too hard, or with a reward that tells more apart.",
    ),
    AlarmRule(
        "cut_off", "completions are cut off", ("completions/clipped_ratio",), first_of("completions/clipped_ratio"),
        "the share of completions that max_new_tokens cut off", "",
        "An answer that is cut off is judged unfinished, and the policy is not taught how to end.",
        "Clone the run with a larger {method}.max_new_tokens or {method}.missing_eos_penalty, or begin from a model "
        "that has learned by SFT to end its answers.",
    ),
    AlarmRule(
        "overfitting", "training and held-out accuracy part",
        ("accuracy", "eval_accuracy", "eval_accuracy_standard_error"),
        accuracy_gap, "training accuracy less held-out accuracy", "",
        "The reward model learns its pairs by heart; what it says of other answers gets worse or stays as it is.",
        "Use the best checkpoint (run:ID, without a step), train for an epoch at most, or add pairs.",
        readings="evaluations", kept=lambda rows, window: rows[-LATEST_STEPS:],
    ),
    AlarmRule(
        "displacement", "the preferred answers are being unlearnt", ("displacement/chosen", "rewards/margins"),
        displacement, "the log-prob that a token of the preferred answers has lost", "nats",
        "The margin grows because the rejected answers fall faster, while both become less likely: what becomes "
        "likelier instead is neither of them.",
        "Clone the run with dpo.sft_coef = 1 (adds the preferred answers' NLL), a larger beta or a smaller optim.lr, "
        "or leave out pairs whose answers hardly differ.",
    ),
)  # fmt: skip
"""Every alarm, in the order of run.toml."""

BY_NAME: dict[str, AlarmRule] = {rule.name: rule for rule in RULES}
