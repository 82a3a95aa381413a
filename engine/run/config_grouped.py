"""The sections of run.toml of the methods that compare several completions of each prompt.

Owns their keys. Invariant: a key means the same in both, and as in [ppo] where that has it; those of the same default
stand once, and come first in their section. Which go together is in `engine.run.config_together`; the losses, each with
its equation and paper, are in `engine.objectives.grouped_policy`, and where each KL comes to rest is in
`engine.objectives.kl_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.run.config_bounds import bounded as _key
from engine.run.config_ppo import KL_IN_REWARD


@dataclass(frozen=True)
class GroupedConfig:
    """The keys that [grpo] and [rloo] both have; each adds its own."""

    max_new_tokens: int = _key(64, at_least=1)
    """Tokens sampled at most for each completion."""
    temperature: float = _key(1.0, above=0)
    """Temperature of the completions."""
    epochs: int = _key(2, at_least=1)
    """Passes over the completions of a step."""
    minibatches: int = _key(2, at_least=1)
    """Updates in each pass; a group, the completions of a prompt, is never divided."""
    flat_groups: str = _key("keep", choices=("keep", "skip"))
    """Groups whose rewards are all equal: keep counts them with advantage 0; skip leaves them out of the loss."""
    mask_truncated: bool = False
    """Completions that did not end take no part in the loss, as in DAPO; they count in their prompt's baseline."""
    score_scale: str = _key("reward_model", choices=("reward_model", "running", "none"))
    """Scores less a mean and over a deviation: of the reward model's held-out answers, of the run's so far, or raw."""
    score_clip: float = _key(0.0, at_least=0)
    """Scores are clipped to +- this; 0: not."""
    missing_eos: str = _key("subtract", choices=("subtract", "replace"))
    """A completion that did not end: missing_eos_penalty is taken off its score, or minus that is its score."""
    missing_eos_penalty: float = _key(1.0, at_least=0)
    """Of a completion that did not end, in the unit of the scaled scores."""


@dataclass(frozen=True)
class GrpoConfig(GroupedConfig):
    """[grpo]: group-relative policy optimisation against a reward model."""

    generations: int = _key(8, at_least=2, usual="4 to 16 are usual")
    """Completions sampled for each prompt: its group."""
    scale_rewards: str = _key("none", choices=("none", "group", "batch"))
    """Deviation that advantages are in: none, as in Dr. GRPO; group: their group's, as published; batch: the step's."""
    loss_type: str = _key("dapo", choices=("grpo", "dapo", "dr_grpo", "cispo"))
    """grpo: mean over completions of token means; dapo: over all tokens; dr_grpo: by max_new_tokens; cispo: as dapo."""
    importance_level: str = _key("token", choices=("token", "sequence"))
    """The ratio that is clipped: each token's, or, with loss_type grpo, the completion's as in GSPO."""
    clip: float = _key(0.2, above=0, usual="0.2; GSPO's sequence ratios need about 3e-4")
    """The ratio counts from 1 - clip on; cispo has no lower end."""
    clip_high: float = _key(0.2, above=0, usual="0.2, DAPO 0.28, CISPO 4")
    """The ratio counts up to 1 + clip_high."""
    kl_coef: float = _key(0.05, at_least=0, usual="0 to 0.1 are usual")
    """Weight of a nat of KL to the reference; in the loss it acts as generations / (generations - 1) times as much."""
    kl_in: str = _key("loss", choices=("loss", "reward"))
    """Where the KL stands: a term of each token, as published; or taken off the score, whose optimum it then shifts."""
    kl_estimator: str = _key("k3_token", choices=("k1", "k2", "k3", "k3_token", "k3_prefix"))
    """k3: as published; k3_token, k3_prefix: by the ratio of the token or of all so far; in the reward k1 to k3."""


@dataclass(frozen=True)
class RlooConfig(GroupedConfig):
    """[rloo]: REINFORCE leave-one-out against a reward model; the KL stands in the reward."""

    generations: int = _key(4, at_least=1, usual="2 to 8 are usual")
    """Completions sampled for each prompt."""
    baseline: str = _key("leave_one_out", choices=("leave_one_out", "batch"))
    """leave_one_out: the prompt's other completions; batch: mean and deviation of the step's tokens, REINFORCE++."""
    clip: float = _key(0.2, above=0)
    """The ratio, of the completion or, with batch, of the token, counts from 1 - clip on."""
    clip_high: float = _key(0.2, above=0)
    """The ratio counts up to 1 + clip_high."""
    kl_coef: float = _key(0.05, at_least=0, usual="0.01 to 0.2 are usual")
    """Weight of a nat of KL to the reference, against scores in standard deviations of the reward model's."""
    kl_estimator: str = _key("k1", choices=KL_IN_REWARD)
    """Estimator of that KL."""
