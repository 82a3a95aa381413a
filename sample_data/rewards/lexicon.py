"""Reward functions by word lists, as an example of the form: a batch of answers in, a number for each out.

A run calls a function once for all answers of a step, in a process of its own:

    f(prompts, completions, **row) -> list[float]

`prompts` holds the prompt of each answer as the data has it (messages, or a text), `completions` the answers as texts,
and `row` what else the rows of the prompts say, by name of the column, each a list with one entry for each answer
(None where a row lacks it): `id`, the columns that are no prompt, `reference` (the row's own answer), and `stopped`
(whether the answer ended by itself). Every answer must get one finite number. A function without **row is given what
it names alone. A list of words is easily gamed: an answer that only repeats them scores best, which is why a weight
below that of a reward model is wise.
"""

from __future__ import annotations

import re

FRIENDLY = frozenset({"please", "thanks", "thank", "glad", "happy", "welcome", "hello", "kindly", "sorry"})
HARSH = frozenset({"stupid", "idiot", "useless", "hate", "shut", "awful", "terrible", "dumb"})
WORD = re.compile(r"[a-z']+")


def positive(prompts: list[object], completions: list[str], **row: list[object]) -> list[float]:
    """Friendly words less harsh ones, each counted once, by the root of the answer's length; from about -1 to 1."""
    scores = []
    for completion in completions:
        words = WORD.findall(completion.lower())
        said = set(words)
        scores.append((len(said & FRIENDLY) - len(said & HARSH)) / max(1, len(words)) ** 0.5)
    return scores


def short(prompts: list[object], completions: list[str]) -> list[float]:
    """Minus a hundredth for each word: a price on length."""
    return [-0.01 * len(WORD.findall(completion.lower())) for completion in completions]


def names_reference(prompts: list[object], completions: list[str], reference: list[str | None]) -> list[float]:
    """1 where an answer holds the row's own answer, white space and case aside; for answers that can be checked."""
    plain = [None if text is None else " ".join(text.lower().split()) for text in reference]
    return [
        float(wanted is not None and wanted in " ".join(completion.lower().split()))
        for completion, wanted in zip(completions, plain, strict=True)
    ]
