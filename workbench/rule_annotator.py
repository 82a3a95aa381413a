"""The annotator "rule": judges a pair set by the sample domain's gold rule.

Owns how two scores become a verdict. Its judgments have the origin "rule" and are synthetic: whoever shows them says
so. The rule itself lives in sample_data, where the engine cannot import it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.canonical_rows import Completion, Prompt, last_user_text, text_of
from workbench.judgments import Showing, Verdict
from workbench.pair_sets import Pair, PairSet
from workbench.steps import Progress, Steps

ANNOTATOR = "rule"
_EQUAL_WITHIN = 1e-9
Score = Callable[..., Any]
"""score(prompt, answer, stopped=…) → an object with .total; `stopped` is passed only where an answer was cut off."""


@dataclass(frozen=True)
class RuleReport:
    """What one judging did."""

    judged: int
    """Pairs judged now."""
    already_judged: int
    verdicts: dict[str, int]
    """a, b and tie, of those judged now."""


def judge_by_rule(
    pair_set: PairSet, *, score: Score | None = None, annotator: str = ANNOTATOR, progress: Progress | None = None
) -> RuleReport:
    """Judges every pair this annotator has not judged: the answer with the higher total, a tie where both are equal.

    `score` is sample_data.gold_rule.score unless given. All verdicts are durable when this returns; run again after a
    crash, it judges what is missing. They are written at once when the last is known, so where `progress`, which counts
    pairs, raises, there are none.
    """
    pair_set.workspace.require_writable()
    if score is None:
        from sample_data import gold_rule

        score = gold_rule.score
    said = pair_set.judgments()
    verdicts: dict[str, Verdict] = {}
    already = 0
    for pair in Steps(pair_set.info.rows, progress).over(pair_set.pairs()):
        if said.stands(Showing(pair.id, annotator)):
            already += 1
        else:
            verdicts[pair.id] = verdict_of(pair, score)
    with pair_set.journal(annotator) as journal:
        journal.append_many(journal.prepare(pair, verdict, origin="rule") for pair, verdict in verdicts.items())
    return RuleReport(len(verdicts), already, dict(Counter(verdicts.values())))


def verdict_of(pair: Pair, score: Score) -> Verdict:
    """The rule's verdict on one pair."""
    first = _total(score, pair.prompt, pair.a, pair.tags.get("stopped_a", True) is not False)
    second = _total(score, pair.prompt, pair.b, pair.tags.get("stopped_b", True) is not False)
    if abs(first - second) <= _EQUAL_WITHIN:
        return "tie"
    return "a" if first > second else "b"


def _total(score: Score, prompt: Prompt, answer: Completion, stopped: bool) -> float:
    asked, said = last_user_text(prompt), text_of(answer)
    return float((score(asked, said) if stopped else score(asked, said, stopped=False)).total)
