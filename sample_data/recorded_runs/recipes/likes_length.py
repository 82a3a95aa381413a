"""A reward that is easily gamed: a tenth for each word, whatever they say."""


def length(prompts: list[object], completions: list[str]) -> list[float]:
    """Words of each answer, by ten."""
    return [len(completion.split()) / 10 for completion in completions]
