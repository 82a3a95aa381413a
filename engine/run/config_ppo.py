"""[ppo] of run.toml.

Owns its keys. Invariant: a key that other methods on rollouts have, too, means the same there. Which go together is in
`engine.run.config_together`; the equations are in `engine.objectives`, and where each KL comes to rest in
`engine.objectives.kl_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.run.config_bounds import bounded as _key

KL_IN_REWARD = ("k1", "k2", "k3")
KL_IN_LOSS = ("k2", "k3", "k3_token", "k3_prefix")


@dataclass(frozen=True)
class PpoConfig:
    """[ppo]: proximal policy optimisation against a reward model."""

    max_new_tokens: int = _key(64, at_least=1)
    """Tokens sampled at most for each rollout."""
    temperature: float = _key(1.0, above=0)
    """Temperature of the rollouts."""
    kl_coef: float = _key(0.05, at_least=0, usual="0.01 to 0.2 are usual")
    """Weight of a nat of KL to the reference, against the scaled scores; with kl_control adaptive, where it begins."""
    kl_in: str = _key("reward", choices=("reward", "loss"))
    """Where the KL stands: taken off each token's reward, as published; or a term of the loss."""
    kl_estimator: str = _key("k1", choices=("k1", "k2", "k3", "k3_token", "k3_prefix"))
    """reward: k1, k2 (biased) or k3; loss: k2, k3 or, weighed by importance, k3_token or k3_prefix."""
    kl_control: str = _key("fixed", choices=("fixed", "adaptive"))
    """fixed: the weight stays kl_coef; adaptive: it is steered, as Ziegler et al. did, to bring the KL to kl_target."""
    kl_target: float = _key(6.0, above=0, usual="6 is the paper's; 1 to 10 are usual")
    """adaptive: nats of KL a rollout, k1, against the reference."""
    kl_horizon: float = _key(10_000.0, above=0, usual="10000 is the paper's; ten to fifty steps' rollouts")
    """adaptive: rollouts over which the weight can change by a fifth."""
    gamma: float = _key(1.0, above=0, at_most=1)
    """Discount."""
    lam: float = _key(0.95, at_least=0, at_most=1)
    """Lambda of the advantage estimate; the returns that the value learns are those advantages plus the old values."""
    clip: float = _key(0.2, above=0)
    """The policy's ratio counts between 1 - clip and 1 + clip."""
    target_kl: float = _key(0.0, at_least=0)
    """A step's updates end after the first mini-batch whose mean k2 to the sampling policy is above; 0: never."""
    epochs: int = _key(2, at_least=1)
    """Passes over the rollouts of a step."""
    minibatches: int = _key(2, at_least=1)
    """Updates in each pass."""
    whiten: bool = True
    """Advantages to mean 0 and deviation 1 over the step."""
    value_model: str = _key("adapter", choices=("adapter", "head"))
    """adapter: an adapter of its own, begun as the reward model's; head: a head on the frozen reward model, cheaper."""
    value_lr: float = _key(5e-4, above=0, usual="about ten times the policy's")
    """Peak learning rate of the value function."""
    value_warmup: int = _key(2, at_least=0, usual="2 to 10 are usual")
    """Steps at the beginning in which the value learns and the policy does not."""
    value_warmup_epochs: int = _key(4, at_least=1)
    """Passes over the rollouts of such a step."""
    clip_value: float = _key(0.2, at_least=0)
    """The value moves at most this far in a step, in the unit of the score, but in warm-up; 0: as far as it likes."""
    vf_coef: float = _key(0.1, at_least=0)
    """Weight of the value loss."""
    score_scale: str = _key("reward_model", choices=("reward_model", "running", "none"))
    """Scores less a mean and over a deviation: of the reward model's held-out answers, of the run's so far, or raw."""
    score_clip: float = _key(0.0, at_least=0)
    """Scores are clipped to +- this; 0: not."""
    score_at: str = _key("eos", choices=("eos", "post_eos"))
    """Where the score lands: on a rollout's last token, or on a state after its end-of-turn, as in TRL."""
    missing_eos: str = _key("subtract", choices=("subtract", "replace"))
    """A rollout that did not end: missing_eos_penalty is taken off its score, or minus that is its score."""
    missing_eos_penalty: float = _key(1.0, at_least=0)
    """Of a rollout that did not end, in the unit of the scaled scores."""
