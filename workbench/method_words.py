"""What each method is, in the words of a person: for help texts and the launch form. Imports nothing."""

METHOD_WORDS = {
    "sft": "supervised fine-tuning on demonstrations",
    "reward": "a reward model on preferences",
    "dpo": "direct preference optimisation",
    "simpo": "preferences by token-mean log-probs, without a reference",
    "cpo": "preferences by log-probs, beside the chosen answers' likelihood",
    "orpo": "demonstrations and preferences at once, by odds ratios",
    "kto": "answers that were judged one by one",
    "ppo": "proximal policy optimisation against a reward model",
    "grpo": "several answers to a prompt, compared by a reward model",
    "rloo": "the same, each answer against the others, KL in the reward",
}
