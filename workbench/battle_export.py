"""Judged pairs as Chatbot Arena battles: one record for each first verdict, with both models and who won.

Owns the record (the columns of lmsys/chatbot_arena_conversations: question_id, model_a, model_b, winner, judge,
conversation_a, conversation_b, turn, anony, language, tstamp). Invariants: repeats, calibration pairs, adjudications,
skips and what was undone are no battles; the judge is the name in the journal, of a rule, too. Sources are told here:
whoever exports has ended the blind part.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from workbench.canonical_rows import Completion, Prompt, assistant, user
from workbench.errors import UsageError
from workbench.judgment_lines import Judgment
from workbench.label_form import OVERALL
from workbench.pair_sets import Pair, PairSet

WINNERS = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}
"""The words of the published battles."""


def battles(pair_set: PairSet, criterion: str = "") -> Iterator[dict[str, Any]]:
    """The battles of a pair set or arena on one question, in its order; UsageError where it has no such question."""
    names = [one.name for one in pair_set.form.questions]
    asked = criterion or (OVERALL if OVERALL in names else names[0])
    if asked not in names:
        raise UsageError(f"{pair_set.name} has no question {asked!r}; it has {', '.join(names)}.")
    said: dict[str, list[Judgment]] = {}
    for judgment in pair_set.judgments().first:
        if judgment.criterion == asked and judgment.verdict in WINNERS:
            said.setdefault(judgment.pair, []).append(judgment)
    for pair in pair_set.pairs():
        for judgment in said.get(pair.id, ()):
            yield _battle(pair, judgment)


def _battle(pair: Pair, judgment: Judgment) -> dict[str, Any]:
    prompt = _turns(pair.prompt, user)
    return {
        "question_id": pair.id,
        "model_a": pair.source_a or "a",
        "model_b": pair.source_b or "b",
        "winner": WINNERS[judgment.verdict],
        "judge": judgment.annotator,
        "conversation_a": [*prompt, *_turns(pair.a, assistant)],
        "conversation_b": [*prompt, *_turns(pair.b, assistant)],
        "turn": sum(turn["role"] == "user" for turn in prompt),
        "anony": True,
        "language": "unknown",
        "tstamp": _seconds(judgment.time),
    }


def _turns(text: Prompt | Completion, of: Any) -> list[dict[str, Any]]:
    return [of(text)] if isinstance(text, str) else [dict(turn) for turn in text]


def _seconds(written: str) -> float:
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        return 0.0
