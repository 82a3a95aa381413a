"""The sentiment of a text by a lexicon and rules, VADER (Hutto and Gilbert 2014), as a reward function.

It stands alone, as every file of reward functions must; it needs: pip install --no-deps vaderSentiment.
"""

from __future__ import annotations

from importlib import import_module


def compound(prompts: list[object], completions: list[str]) -> list[float]:
    """VADER's compound score of each completion, from -1 (most negative) to 1; its prompt is not looked at."""
    analyzer = import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(completion)["compound"]) for completion in completions]
