"""What a run's model said while it was trained, step by step, read while the run goes on.

Owns which completions count (the rule of the metrics) and the figures beside them. Invariant: a KL of one completion is
the sum of its tokens' log-ratios, k1 from a single sample, and is named as such. Text is strangers': whoever shows it
passes it through `engine.run.safe_text.safe`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from engine.run.folder import RunFolder
from engine.run.metrics_log import Supersession
from workbench.growing_lines import GrowingLines
from workbench.value_axis import short_number

LONGEST_TEXT = 16_384
"""Characters of a prompt or completion that are kept."""
Place = tuple[int, str]
"""A step, and probe or rollout."""


@dataclass(frozen=True)
class Sample:
    """One completion."""

    attempt: int
    prompt: str
    completion: str
    figures: str
    """Length, how it ended, reward and log-ratio, in words; without what is not known."""
    logratio: float | None
    """Of all its tokens together, nats; None where it was not measured."""
    key: str = ""
    """The same for answers to the same prompt at other steps."""
    ratios: tuple[float, ...] = ()
    """Of each token, nats."""
    ends: tuple[int, ...] = ()
    """Characters of the completion up to the end of each token; empty where that is not known."""
    reward: float | None = None


class RunSamples:
    """The samples of one run; `read` takes in what is new."""

    def __init__(self, folder: RunFolder) -> None:
        self._lines = GrowingLines(folder.samples_path)
        self._found: dict[Place, list[Sample]] = {}

    def read(self) -> int:
        """Take in what is new; how many samples there are. Raises OSError where the file cannot be read."""
        batch = self._lines.read()
        if batch.anew:
            self._found = {}
        for line in batch.lines:
            step, attempt, source = line.get("step"), line.get("attempt"), line.get("source")
            if type(step) is int and type(attempt) is int and isinstance(source, str):
                self._found.setdefault((step, source), []).append(_sample(attempt, line))
        return sum(map(len, self._found.values()))

    def places(self, superseded: Supersession) -> list[Place]:
        """Where there are samples that count, in order."""
        return sorted(place for place in list(self._found) if self.at(place, superseded))

    def at(self, place: Place, superseded: Supersession) -> list[Sample]:
        """The samples that count at a place: those of the last attempt at its step."""
        rows = [row for row in self._found.get(place, ()) if superseded.counts(row.attempt, place[0])]
        newest = max((row.attempt for row in rows), default=0)
        return [row for row in rows if row.attempt == newest]


def summary_of(samples: list[Sample]) -> str:
    """What a line above the samples of one place says."""
    ratios = [sample.logratio for sample in samples if sample.logratio is not None]
    count = f"{len(samples):,} answer{'' if len(samples) == 1 else 's'}"
    if not ratios:
        return count
    return f"{count} · mean log-ratio {short_number(math.fsum(ratios) / len(ratios))} nats"


def _sample(attempt: int, line: dict[str, Any]) -> Sample:
    ratios = line.get("logratio")
    values = [value for value in ratios if type(value) in (int, float)] if isinstance(ratios, list) else []
    logratio = math.fsum(values) if values else None
    parts = []
    if type(line.get("length")) is int:
        parts.append(f"{line['length']:,} tokens{'' if line.get('stopped', True) else ', cut off'}")
    scores = line.get("scores")
    named: dict[str, Any] = {"reward": line.get("reward"), **(scores if isinstance(scores, dict) else {})}
    parts += [f"{str(name)[:40]} {short_number(value)}" for name, value in named.items() if type(value) in (int, float)]
    if logratio is not None:
        parts.append(f"log-ratio {short_number(logratio)} nats")
    prompt, completion = (_text(line.get(key)) for key in ("prompt", "completion"))
    key = line.get("prompt_id")
    reward = line.get("reward")
    return Sample(
        attempt, prompt, completion, " · ".join(parts), logratio, key if isinstance(key, str) and key else prompt,
        tuple(values), _ends(line.get("ends"), len(values), len(completion)),
        float(reward) if isinstance(reward, (int, float)) and not isinstance(reward, bool) else None,
    )  # fmt: skip


def _ends(found: object, tokens: int, characters: int) -> tuple[int, ...]:
    """The ends of tokens, where they are as many as the tokens, in order and inside the completion."""
    if not isinstance(found, list) or len(found) != tokens or not all(type(end) is int for end in found):
        return ()
    return tuple(found) if found == sorted(found) and found[0] >= 0 and found[-1] <= characters else ()


def _text(value: object) -> str:
    return (value if isinstance(value, str) else "" if value is None else str(value))[:LONGEST_TEXT]
