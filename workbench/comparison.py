"""Win rates: two models answered the same prompts, somebody judged blindly which answer is better.

Owns the arithmetic from verdicts to a rate with its interval. A win counts 1, a tie and "both bad" a half, a skip
nothing; a pair that several people judged counts once, with the mean of their verdicts. Pairs that share a cluster
(their tag "combination", else their prompt) are not independent: where clusters hold several pairs, the interval is a
bootstrap over clusters, else Wilson's. Blindness is the pair set's: which model gave a and which b is not shown.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.statistics import bootstrap_interval, wilson_interval

if TYPE_CHECKING:
    from workbench.pair_sets import PairSet

WORTH = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
"""What a verdict is worth to the model that gave answer a."""
CLUSTER_TAG = "combination"


@dataclass(frozen=True)
class JudgedPair:
    """One verdict on one pair, with what is needed to count it."""

    pair: str
    a_is_first: bool
    """Answer a came from the first model."""
    verdict: str
    cluster: str


@dataclass(frozen=True)
class WinRate:
    """How often the first model's answer was preferred."""

    rate: float
    """Wins plus half the ties, over all judged pairs; NaN without any."""
    low: float
    high: float
    """Ends of the 95 % interval."""
    wins: int
    losses: int
    ties: int
    """Pairs; a pair with several verdicts is what their mean says."""
    pairs: int
    """Judged pairs."""
    clusters: int
    method: str
    """"wilson" or "bootstrap over clusters"."""

    def as_json(self) -> dict[str, float | int | str | None]:
        """Plain values; NaN is null."""
        fields: dict[str, float | int | str | None] = dict(self.__dict__)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}


def win_rate(judged: Iterable[JudgedPair]) -> WinRate:
    """The first model's win rate over the second with its 95 % interval."""
    worths: defaultdict[str, list[float]] = defaultdict(list)
    cluster_of: dict[str, str] = {}
    for one in judged:
        if one.verdict in WORTH:
            worth = WORTH[one.verdict]
            worths[one.pair].append(worth if one.a_is_first else 1.0 - worth)
            cluster_of[one.pair] = one.cluster
    values = {pair: sum(found) / len(found) for pair, found in worths.items()}
    n, clusters = len(values), len(set(cluster_of.values()))
    total = math.fsum(values.values())
    if n == clusters:
        method, (low, high) = "wilson", wilson_interval(total, n)
    else:
        method = "bootstrap over clusters"
        low, high = bootstrap_interval(list(values.values()), [cluster_of[pair] for pair in values])
    return WinRate(
        rate=total / n if n else math.nan,
        low=low,
        high=high,
        wins=sum(value > 0.5 for value in values.values()),
        losses=sum(value < 0.5 for value in values.values()),
        ties=sum(value == 0.5 for value in values.values()),
        pairs=n,
        clusters=clusters,
        method=method,
    )


def cluster_of(tags: Mapping[str, object], group: str) -> str:
    """What a pair's errors are clustered by."""
    found = tags.get(CLUSTER_TAG)
    return f"{CLUSTER_TAG} {found}" if found not in (None, "") else f"group {group}"


def report(arena: PairSet) -> dict[str, Any]:
    """What an arena says now: the win rate of its first model over its second, and how much is judged.

    Prompts to which both models gave the same answer are no pairs; they are counted as ties.
    """
    first, second = models_of(arena)
    pairs = {pair.id: pair for pair in arena.pairs()}
    said = arena.judgments()
    judged = [
        JudgedPair(
            pair=showing.pair,
            a_is_first=pairs[showing.pair].source_a == first,
            verdict=judgment.verdict,
            cluster=cluster_of(pairs[showing.pair].tags, pairs[showing.pair].group),
        )
        for showing, judgment in said.current.items()
        if showing.pair in pairs and showing.repeat == 0
    ]
    identical = [
        JudgedPair(f"identical {cluster} {number}", True, "tie", cluster)
        for cluster, count in arena.info.source.get("identical", {}).items()
        for number in range(count)
    ]
    counted = [
        (showing, judgment)
        for showing, judgment in said.current.items()
        if showing.pair in pairs and showing.repeat == 0 and judgment.verdict in WORTH
    ]
    verdicts = Counter(showing.pair for showing, _ in counted)
    rate = win_rate([*judged, *identical]) if verdicts else win_rate([])
    return {
        "schema": 1,
        "arena": arena.name,
        "models": [first, second],
        "pairs": arena.info.rows,
        "judged": len(verdicts),
        "identical": len(identical),
        "origins": sorted({judgment.origin for _, judgment in counted}),
        "annotators": dict(sorted(Counter(showing.annotator for showing, _ in counted).items())),
        "several_verdicts": sum(count > 1 for count in verdicts.values()),
        "win_rate": rate.as_json(),
    }


def models_of(arena: PairSet) -> tuple[str, str]:
    """The two models that an arena compares."""
    try:
        first, second = (model["source"] for model in arena.info.source["models"])
    except (KeyError, TypeError, ValueError) as error:
        raise WorkbenchError(
            f"{arena.name} was not made from two models; make one with: workbench arena make"
        ) from error
    return first, second
