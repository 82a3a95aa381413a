"""The names of the methods, and what they have in common: apart from their settings, so that who only asks for a name
does not wait for all of these."""

METHODS = ("sft", "reward", "dpo", "simpo", "cpo", "orpo", "kto", "ppo", "grpo", "rloo")
ON_ROLLOUTS = ("ppo", "grpo", "rloo")
"""Methods that learn from completions of their own, which a reward model judges."""
AGAINST_REFERENCE = ("dpo", "kto", *ON_ROLLOUTS)
"""Methods whose loss is a function of a reference, beside the policy."""
