"""The one table of metric names: unit, definition and denominator of everything a run writes to metrics.jsonl.

Owns the meaning of names; curves, tables and docs read it here. Names are TRL's where TRL has the quantity. Where TRL's
is a mean over micro-batches or padding, ours is the exact mean over the denominator given here. Invariants: one name
means one quantity in every method; KL is always said with its estimator, tokens and direction. A held-out metric is
`eval_` and the name, defined alike over all held-out data; `_standard_error` behind a name is its standard error, and
`/SOURCE` behind both the figure of one dataset of several.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.run.method_names import METHODS, ON_ROLLOUTS

if TYPE_CHECKING:
    from engine.run.config import RunConfig

HELD_OUT = "eval_"
STANDARD_ERROR = "_standard_error"
_PAIRS = ("dpo", "simpo", "cpo", "orpo")
_PREFERENCE = (*_PAIRS, "kto")
_POLICY = ("sft", *_PREFERENCE, *ON_ROLLOUTS)
_GROUPED = ("grpo", "rloo")
_ANSWERS = "pairs; kto: such answers"


@dataclass(frozen=True)
class MetricInfo:
    """What a name means."""

    name: str
    """As it stands in metrics.jsonl."""
    unit: str
    """nats, tokens, seconds …; "1" for a plain number, "share" for one between 0 and 1."""
    definition: str
    """A clause in words."""
    denominator: str
    """What it is a mean over; empty where it is no mean."""
    methods: tuple[str, ...] = METHODS
    """Who writes it."""


TABLE: tuple[MetricInfo, ...] = (
    MetricInfo("loss", "nats", "the objective that is minimised, all its terms", "the step's examples or tokens"),
    MetricInfo("grad_norm", "1", "L2 norm of the trained weights' gradient, before clipping", "optimizer updates"),
    MetricInfo("learning_rate", "1", "learning rate of the optimizer update", "optimizer updates"),
    MetricInfo("num_tokens", "tokens", "tokens trained on since the run began; a pair's prompt once", ""),
    MetricInfo("tokens_per_second", "tokens/s", "tokens of the step by its duration, rollouts included", ""),
    MetricInfo("step_time_s", "seconds", "duration of the step without evaluation, probe and checkpoint", ""),
    MetricInfo("peak_memory_bytes", "bytes", "most memory held so far: on the CUDA device, else resident", ""),
    MetricInfo(
        "mfu", "share",
        "model FLOPs utilisation: the arithmetic that the step's training passes ask for (4 FLOPs a weight and token "
        "with LoRA, 6 without, and attention) by the step's duration and the bf16 peak by the data sheet of the "
        "leading process's GPU; time for rollouts counts, their arithmetic does not",
        "",
    ),
    MetricInfo("gpu/memory_bytes", "bytes", "memory in use on the leading process's GPU, by anyone; by NVML", ""),
    MetricInfo("gpu/load", "share", "share of the last second or less in which the GPU did anything; by NVML", ""),
    MetricInfo("gpu/power_watts", "watts", "power that the GPU draws; by NVML", ""),
    MetricInfo("gpu/temperature_celsius", "°C", "temperature of the GPU; by NVML", ""),
    MetricInfo("entropy", "nats", "entropy of the next-token distribution", "trained tokens", _POLICY),
    MetricInfo(
        "mean_token_accuracy", "share", "tokens that are the most likely one; on pairs: of the chosen answers",
        "trained tokens", ("sft", *_PAIRS),
    ),
    MetricInfo(
        "accuracy", "share", "pairs whose chosen answer has the higher reward; ties count half", "pairs", ("reward",)
    ),
    MetricInfo("margin", "1", "reward of the chosen answer minus that of the rejected one", "pairs", ("reward",)),
    MetricInfo(
        "calibration_error", "share",
        "expected calibration error: |accuracy - confidence| over ten bins of confidence, sigmoid of the reward gap",
        "pairs", ("reward",),
    ),
    MetricInfo("mean_reward", "1", "reward, chosen and rejected alike", "answers", ("reward",)),
    MetricInfo("min_reward", "1", "least reward of any answer", "", ("reward",)),
    MetricInfo("max_reward", "1", "greatest reward of any answer", "", ("reward",)),
    MetricInfo(
        "rewards/chosen", "nats",
        "implicit reward of the chosen (kto: a desirable) answer: beta times its log-ratio to the reference; "
        "cpo: its log-prob, simpo and orpo: its token-mean log-prob in the log-ratio's place",
        _ANSWERS, _PREFERENCE,
    ),
    MetricInfo(
        "rewards/rejected", "nats", "implicit reward of the rejected (kto: an undesirable) answer, as rewards/chosen",
        _ANSWERS, _PREFERENCE,
    ),
    MetricInfo(
        "rewards/margins", "nats", "rewards/chosen minus rewards/rejected, pair by pair; kto: of their means",
        "pairs; kto: steps", _PREFERENCE,
    ),
    MetricInfo(
        "rewards/accuracies", "share", "pairs whose chosen answer has the higher implicit reward; ties count half",
        "pairs", _PAIRS,
    ),
    MetricInfo(
        "logps/chosen", "nats", "log-prob of the chosen (kto: a desirable) answer, summed over its tokens",
        _ANSWERS, _PREFERENCE,
    ),
    MetricInfo(
        "logps/rejected", "nats", "log-prob of the rejected (kto: an undesirable) answer, summed over its tokens",
        _ANSWERS, _PREFERENCE,
    ),
    MetricInfo(
        "logratio/chosen", "nats",
        "log p_policy - log p_reference of the chosen (kto: a desirable) answer, summed over its tokens; dataset text, "
        "so no KL",
        _ANSWERS, ("dpo", "kto"),
    ),
    MetricInfo(
        "logratio/rejected", "nats",
        "log p_policy - log p_reference of the rejected (kto: an undesirable) answer, summed over its tokens; dataset "
        "text, so no KL",
        _ANSWERS, ("dpo", "kto"),
    ),
    MetricInfo(
        "displacement/chosen", "nats",
        "by how much the log-prob of a token of the chosen (kto: desirable) answers has moved since the start: "
        "log p_policy - log p_reference; below 0 the policy has become less likely to say what was preferred",
        "tokens of these answers", ("dpo", "kto"),
    ),
    MetricInfo(
        "displacement/rejected", "nats",
        "by how much the log-prob of a token of the rejected (kto: undesirable) answers has moved since the start",
        "tokens of these answers", ("dpo", "kto"),
    ),
    MetricInfo(
        "preference_loss", "nats", "the preference term alone, where an NLL is added to it", "pair weights", _PAIRS
    ),
    MetricInfo(
        "nll_loss", "nats",
        "negative log-prob; on pairs: of the chosen answers' tokens; sft: where the objective is another one",
        "trained tokens", ("sft", *_PAIRS),
    ),
    MetricInfo(
        "log_odds_chosen", "nats",
        "log odds of the chosen answer minus those of the rejected one, odds p/(1-p) of token-mean log-probs",
        "pairs", ("orpo",),
    ),
    MetricInfo(
        "kl", "nats",
        "z0, the baseline of kto: log p_policy - log p_reference of an answer to another prompt, summed over its "
        "tokens; 0 where that mean is below it; dataset text, so no estimate of the policy's KL",
        "the step's examples", ("kto",),
    ),
    MetricInfo(
        "kl/policy_reference_nats_per_sequence", "nats",
        "KL(policy || reference): k1 over completions sampled from the current policy at probe.temperature for the "
        "probe prompts, summed over each completion's tokens",
        "probe completions", _POLICY,
    ),
    MetricInfo(
        "kl/policy_reference_nats_per_token", "nats",
        "KL(policy || reference): k1 over completions sampled from the current policy at probe.temperature for the "
        "probe prompts",
        "sampled tokens", _POLICY,
    ),
    MetricInfo(
        "kl/policy_reference_standard_error", "nats",
        "standard error of kl/policy_reference_nats_per_sequence over the probe prompts", "", _POLICY,
    ),
    MetricInfo("probe/completion_length", "tokens", "length of the probe's completions", "probe completions", _POLICY),
    MetricInfo("probe/seconds", "seconds", "what the probe cost, its greedy answers included", "", _POLICY),
    MetricInfo(
        "objective/kl", "nats",
        "KL(policy || reference) of the policy that made the rollouts: k1, summed over each rollout's tokens",
        "rollouts", ON_ROLLOUTS,
    ),
    MetricInfo("objective/entropy", "nats", "entropy at each token, summed over the rollout", "rollouts", ("ppo",)),
    MetricInfo(
        "objective/scores", "1", "score of the reward model, scaled, after the rule for a missing end and clipping",
        "rollouts", ("ppo",),
    ),
    MetricInfo("objective/raw_scores", "1", "score of the reward model as it gives it", "rollouts", ("ppo",)),
    MetricInfo("objective/scores_std", "1", "standard deviation of objective/scores over the step", "", ("ppo",)),
    MetricInfo(
        "objective/non_score_reward", "1",
        "minus kl_coef times the KL, summed over the rollout: by the reward's estimator, or k1 for a KL in the loss",
        "rollouts", ON_ROLLOUTS,
    ),
    MetricInfo(
        "objective/rlhf_reward", "1", "objective/scores plus objective/non_score_reward: what PPO maximises",
        "rollouts", ("ppo",),
    ),
    MetricInfo("objective/kl_coef", "1", "weight of the KL to the reference in this step", "", ("ppo",)),
    MetricInfo("objective/response_length", "tokens", "length of the rollouts", "rollouts", ("ppo",)),
    MetricInfo("loss/policy_avg", "1", "clipped policy loss", "rollout tokens of all updates", ("ppo",)),
    MetricInfo("loss/value_avg", "1", "clipped value loss", "states of all updates", ("ppo",)),
    MetricInfo(
        "loss/kl_avg", "1", "KL to the reference by the estimator of the loss, before its weight",
        "rollout tokens of all updates", ("ppo", "grpo"),
    ),
    MetricInfo("policy/updates", "updates", "optimizer steps of the policy; target_kl may end them", "", ("ppo",)),
    MetricInfo(
        "policy/approxkl_avg", "nats",
        "KL(policy of the rollouts || policy now): k2, half the squared log-ratio, over rollout tokens",
        "rollout tokens of all updates", ON_ROLLOUTS,
    ),
    MetricInfo(
        "policy/clipfrac_avg", "share", "tokens whose ratio lies outside 1 +- ppo.clip",
        "rollout tokens of all updates", ("ppo",),
    ),
    MetricInfo(
        "val/clipfrac_avg", "share", "states whose value moved further than ppo.clip_value", "states of all updates",
        ("ppo",),
    ),
    MetricInfo(
        "val/ratio", "1", "probability under the policy now by that under the policy that made the rollouts",
        "rollout tokens of all updates", ("ppo",),
    ),
    MetricInfo(
        "val/first_ratio_deviation", "1",
        "largest distance of a ratio from 1 in the first update, where it must be 0", "", ON_ROLLOUTS,
    ),
    MetricInfo("val/num_eos_tokens", "rollouts", "rollouts that ended by themselves", "", ("ppo",)),
    MetricInfo(
        "val/explained_variance", "1", "share of the returns' variance that the value foresaw; may be negative",
        "", ("ppo",),
    ),
    MetricInfo(
        "reward", "1", "score of the reward model, after the penalty for a missing end and clipping", "completions",
        _GROUPED,
    ),
    MetricInfo("reward_std", "1", "standard deviation of reward over the step", "", _GROUPED),
    MetricInfo(
        "frac_reward_zero_std", "share",
        "prompts whose completions have equal rewards, a KL in the reward included, and so teach nothing",
        "prompts of the step", _GROUPED,
    ),
    MetricInfo("completions/mean_length", "tokens", "length of the completions", "completions", _GROUPED),
    MetricInfo("completions/min_length", "tokens", "length of the shortest completion", "", _GROUPED),
    MetricInfo("completions/max_length", "tokens", "length of the longest completion", "", _GROUPED),
    MetricInfo(
        "completions/clipped_ratio", "share", "completions that max_new_tokens cut off", "completions", ON_ROLLOUTS
    ),
    MetricInfo(
        "completions/repeated_trigrams", "share",
        "runs of three tokens that came before in the same completion: a completion that goes in circles has many",
        "trigrams of the step's completions", ON_ROLLOUTS,
    ),
    MetricInfo(
        "completions/distinct_bigrams", "share",
        "different runs of two tokens, all completions of the step together: completions that are alike have few",
        "bigrams of the step's completions", ON_ROLLOUTS,
    ),
    MetricInfo(
        "sampling/sampling_logp_difference/mean", "nats",
        "distance of a token's log-prob in the training forward from that it was sampled with: rounding of folded "
        "weights and of the cache; from a server, whatever it does otherwise, too", "rollout tokens", ON_ROLLOUTS,
    ),
    MetricInfo(
        "clip_ratio/low_mean", "share", "ratios below 1 - clip with an advantage below 0, which teach nothing any more",
        "tokens that count, of all updates; with a ratio of whole completions: these", _GROUPED,
    ),
    MetricInfo(
        "clip_ratio/high_mean", "share", "ratios above 1 + clip_high with an advantage above 0",
        "as clip_ratio/low_mean", _GROUPED,
    ),
    MetricInfo(
        "clip_ratio/region_mean", "share", "ratios that are clipped at either end", "as clip_ratio/low_mean", _GROUPED
    ),
)  # fmt: skip

METRICS: dict[str, MetricInfo] = {info.name: info for info in TABLE}
"""By name, without held-out names and standard errors: `metric_info` derives those."""


OF_THE_MACHINE = frozenset(
    {"tokens_per_second", "step_time_s", "peak_memory_bytes", "probe/seconds", "mfu"}
    | {name for name in METRICS if name.startswith("gpu/")}
)
"""What says how a run ran and not what it learned: the rest is the same for the same run.toml, bit for bit on a CPU."""
PER_SOURCE = (
    "loss", "preference_loss", "nll_loss", "mean_token_accuracy", "accuracy", "rewards/accuracies", "objective/scores",
    "reward",
)  # fmt: skip
"""Of these there is a held-out figure for each source, where a run has several: its name, a slash and the source."""
_LONGEST_LABEL = 64
_OTHER_REWARDS = ("chosen", "rejected", "margins", "accuracies")
"""Names behind "rewards/" that mean something else."""


def reward_labels(config: RunConfig) -> tuple[str, ...]:
    """What each reward of a run is called in the names of metrics: reward models first, then functions."""
    first = [config.model.reward_source] if config.model.reward_adapter or config.model.reward_path else []
    models = [_name_of_model(source) for source in (*first, *config.rewards.more_models)]
    labels = source_labels([*_OTHER_REWARDS, *models, *config.rewards.function_names])
    return labels[len(_OTHER_REWARDS) :]


def _name_of_model(source: str) -> str:
    """A run's ID without its step, or the last part of a path."""
    return re.sub(r"^run:|@.*$", "", source).rstrip("/").rpartition("/")[2] or "reward_model"


def reward_family(name: str) -> tuple[str, str] | None:
    """(reward, "mean" or "std") of a figure that each reward has, held-out or not; None for other names."""
    found = re.fullmatch(rf"(?:{HELD_OUT})?rewards/([^/]+)/(mean|std)(?:{STANDARD_ERROR})?", name)
    return (found[1], found[2]) if found and found[1] not in _OTHER_REWARDS else None


def source_labels(names: Sequence[str]) -> tuple[str, ...]:
    """What each source is called in the names of metrics: letters, digits and ._- of its name, each label once."""
    labels: list[str] = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_LONGEST_LABEL] or "_"
        label, number = stem, 1
        while label in labels:
            number += 1
            label = f"{stem}-{number}"
        labels.append(label)
    return tuple(labels)


def source_family(name: str) -> str:
    """The held-out metric of which `name` is the figure of one source ("eval_loss" for "eval_loss/B"); else empty."""
    family, _, source = name.rpartition("/")
    plain = family.removeprefix(HELD_OUT).removesuffix(STANDARD_ERROR)
    return family if source and family.startswith(HELD_OUT) and plain in PER_SOURCE else ""


def metric_info(name: str) -> MetricInfo | None:
    """What `name` means, `eval_` and `_standard_error` names included; None for a name the engine does not write."""
    if (of_reward := reward_family(name)) is not None:
        return _reward_info(name, *of_reward)
    if family := source_family(name):
        of_all, source = metric_info(family), name.rpartition("/")[2]
        return of_all and replace(of_all, name=name, definition=f"of {source} alone, {of_all.definition}")
    if name in METRICS:
        return METRICS[name]
    if name.endswith(STANDARD_ERROR) and (of := metric_info(name.removesuffix(STANDARD_ERROR))) is not None:
        return replace(of, name=name, definition=f"standard error of {of.name}: {of.definition}", denominator="")
    if name.startswith(HELD_OUT) and (of := METRICS.get(name.removeprefix(HELD_OUT))) is not None:
        denominator = f"held-out {of.denominator}" if of.denominator else ""
        return replace(of, name=name, definition=f"on held-out data: {of.definition}", denominator=denominator)
    return None


def _reward_info(name: str, reward: str, what: str) -> MetricInfo:
    """A figure of one reward of several, or of a function: as it gave it, before its weight."""
    words = {"mean": "score", "std": "standard deviation over the step of the score"}[what]
    definition = f"{words} that {reward} gave, in its own unit, before scale and weight"
    if name.endswith(STANDARD_ERROR):
        definition = f"standard error of {name.removesuffix(STANDARD_ERROR)}: {definition}"
    held_out = "held-out completions" if name.startswith(HELD_OUT) else "completions"
    denominator = held_out if what == "mean" and not name.endswith(STANDARD_ERROR) else ""
    return MetricInfo(name, "1", definition, denominator, ON_ROLLOUTS)
