"""The one table of metric names: unit, definition and denominator of everything a run writes to metrics.jsonl.

Owns the meaning of names; curves, tables and docs read it here. Names are TRL's where TRL has the quantity. Where TRL's
is a mean over micro-batches or padding, ours is the exact mean over the denominator given here. Invariants: one name
means one quantity in every method; KL is always said with its estimator, tokens and direction. A held-out metric is
`eval_` and the name, defined alike over held-out data; `_standard_error` behind a name is its standard error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.run.config import METHODS

HELD_OUT = "eval_"
STANDARD_ERROR = "_standard_error"
_POLICY = ("sft", "dpo", "ppo")


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
    MetricInfo("num_tokens", "tokens", "tokens trained on since the run began, prompts included", ""),
    MetricInfo("tokens_per_second", "tokens/s", "tokens of the step by its duration, rollouts included", ""),
    MetricInfo("step_time_s", "seconds", "duration of the step without evaluation, probe and checkpoint", ""),
    MetricInfo("peak_memory_bytes", "bytes", "most memory held so far: on the CUDA device, else resident", ""),
    MetricInfo("entropy", "nats", "entropy of the next-token distribution", "trained tokens", _POLICY),
    MetricInfo(
        "mean_token_accuracy", "share", "tokens that are the most likely one; dpo: of the chosen answers",
        "trained tokens", ("sft", "dpo"),
    ),
    MetricInfo(
        "accuracy", "share", "pairs whose chosen answer has the higher reward; ties count half", "pairs", ("reward",)
    ),
    MetricInfo("margin", "1", "reward of the chosen answer minus that of the rejected one", "pairs", ("reward",)),
    MetricInfo("mean_reward", "1", "reward, chosen and rejected alike", "answers", ("reward",)),
    MetricInfo("min_reward", "1", "least reward of any answer", "", ("reward",)),
    MetricInfo("max_reward", "1", "greatest reward of any answer", "", ("reward",)),
    MetricInfo(
        "rewards/chosen", "nats", "implicit reward of the chosen answer: beta times its log-ratio to the reference",
        "pairs", ("dpo",),
    ),
    MetricInfo(
        "rewards/rejected", "nats", "implicit reward of the rejected answer: beta times its log-ratio to the reference",
        "pairs", ("dpo",),
    ),
    MetricInfo("rewards/margins", "nats", "rewards/chosen minus rewards/rejected, pair by pair", "pairs", ("dpo",)),
    MetricInfo(
        "rewards/accuracies", "share", "pairs whose chosen answer has the higher implicit reward; ties count half",
        "pairs", ("dpo",),
    ),
    MetricInfo("logps/chosen", "nats", "log-prob of the chosen answer, summed over its tokens", "pairs", ("dpo",)),
    MetricInfo("logps/rejected", "nats", "log-prob of the rejected answer, summed over its tokens", "pairs", ("dpo",)),
    MetricInfo(
        "logratio/chosen", "nats",
        "log p_policy - log p_reference of the chosen answer, summed over its tokens; dataset text, so no KL",
        "pairs", ("dpo",),
    ),
    MetricInfo(
        "logratio/rejected", "nats",
        "log p_policy - log p_reference of the rejected answer, summed over its tokens; dataset text, so no KL",
        "pairs", ("dpo",),
    ),
    MetricInfo("dpo_loss", "nats", "the DPO term alone, where an SFT term is added to it", "pair weights", ("dpo",)),
    MetricInfo("nll_loss", "nats", "negative log-prob of the chosen answers' tokens", "chosen tokens", ("dpo",)),
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
    MetricInfo("probe/seconds", "seconds", "what the probe cost", "", _POLICY),
    MetricInfo(
        "objective/kl", "nats",
        "KL(policy || reference) of the policy that made the rollouts: k1, summed over each rollout's tokens",
        "rollouts", ("ppo",),
    ),
    MetricInfo("objective/entropy", "nats", "entropy at each token, summed over the rollout", "rollouts", ("ppo",)),
    MetricInfo(
        "objective/scores", "1", "score of the reward model, after the penalty for a missing end and clipping",
        "rollouts", ("ppo",),
    ),
    MetricInfo("objective/scores_std", "1", "standard deviation of objective/scores over the step", "", ("ppo",)),
    MetricInfo(
        "objective/non_score_reward", "1", "minus kl_coef times the KL by ppo.kl_estimator, summed over the rollout",
        "rollouts", ("ppo",),
    ),
    MetricInfo(
        "objective/rlhf_reward", "1", "objective/scores plus objective/non_score_reward: what PPO maximises",
        "rollouts", ("ppo",),
    ),
    MetricInfo("objective/kl_coef", "1", "weight of the KL in the reward", "", ("ppo",)),
    MetricInfo("objective/response_length", "tokens", "length of the rollouts", "rollouts", ("ppo",)),
    MetricInfo("loss/policy_avg", "1", "clipped policy loss", "rollout tokens of all updates", ("ppo",)),
    MetricInfo("loss/value_avg", "1", "clipped value loss", "rollout tokens of all updates", ("ppo",)),
    MetricInfo(
        "policy/approxkl_avg", "nats",
        "KL(policy of the rollouts || policy now): k2, half the squared log-ratio, over rollout tokens",
        "rollout tokens of all updates", ("ppo",),
    ),
    MetricInfo(
        "policy/clipfrac_avg", "share", "tokens whose ratio lies outside 1 +- ppo.clip",
        "rollout tokens of all updates", ("ppo",),
    ),
    MetricInfo(
        "val/clipfrac_avg", "share", "tokens whose value moved further than ppo.clip_value",
        "rollout tokens of all updates", ("ppo",),
    ),
    MetricInfo(
        "val/ratio", "1", "probability under the policy now by that under the policy that made the rollouts",
        "rollout tokens of all updates", ("ppo",),
    ),
    MetricInfo(
        "val/first_ratio_deviation", "1",
        "largest distance of a ratio from 1 in the first update, where it must be 0", "", ("ppo",),
    ),
    MetricInfo("val/num_eos_tokens", "rollouts", "rollouts that ended by themselves", "", ("ppo",)),
    MetricInfo(
        "val/explained_variance", "1", "share of the returns' variance that the value head foresaw; may be negative",
        "", ("ppo",),
    ),
)  # fmt: skip

METRICS: dict[str, MetricInfo] = {info.name: info for info in TABLE}
"""By name, without held-out names and standard errors: `metric_info` derives those."""


def metric_info(name: str) -> MetricInfo | None:
    """What `name` means, `eval_` and `_standard_error` names included; None for a name the engine does not write."""
    if name in METRICS:
        return METRICS[name]
    if name.endswith(STANDARD_ERROR) and (of := metric_info(name.removesuffix(STANDARD_ERROR))) is not None:
        return replace(of, name=name, definition=f"standard error of {of.name}: {of.definition}", denominator="")
    if name.startswith(HELD_OUT) and (of := METRICS.get(name.removeprefix(HELD_OUT))) is not None:
        denominator = f"held-out {of.denominator}" if of.denominator else ""
        return replace(of, name=name, definition=f"on held-out data: {of.definition}", denominator=denominator)
    return None
