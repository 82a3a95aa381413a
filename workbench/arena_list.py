"""The arenas of a workspace: how far each is judged, and what its verdicts say in words.

Owns the words of a win rate. Invariants: an interval that holds a half decides nothing, and the words say so; verdicts
of the sample rule are called synthetic. Refuses to know how the rate is computed, which is `comparison`'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.comparison import report
from workbench.errors import WorkbenchError
from workbench.pair_sets import PairSet, open_pairs
from workbench.side_by_side import short_names
from workbench.workspace import Workspace, free_name

EVEN = 0.5


@dataclass(frozen=True)
class ArenaState:
    """One arena as a list shows it."""

    name: str
    first: str = ""
    second: str = ""
    """The two models, in full."""
    pairs: int = 0
    judged: int = 0
    open: int = 0
    """Pairs that nobody has judged or skipped."""
    identical: int = 0
    """Prompts to which both gave the same answer; each counts as a tie."""
    words: str = ""
    """What the verdicts say, in a sentence; where the arena cannot be read, why."""
    decided: bool = False
    """The interval lies on one side of a half."""
    judges: str = ""
    """Who gave how many verdicts."""
    rule_knows: bool = False
    """The sample rule may judge it: its prompts are of the sample data."""
    damaged: bool = False


class ArenaReader:
    """Reads the arenas of a workspace again and again; one whose files are as they were is not read anew."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[str, tuple[object, ArenaState]] = {}

    def read(self) -> tuple[ArenaState, ...]:
        """All arenas, the newest first."""
        names = self._workspace.names("arena")
        self._known = {name: self._known[name] for name in names if name in self._known}
        found = []
        for name in names:
            files = self._files(name)
            before = self._known.get(name)
            if before is None or before[0] != files:
                before = self._known[name] = (files, state_of(self._workspace, name))
            found.append((files[:1], before[1]))
        return tuple(state for _, state in sorted(found, key=lambda one: one[0], reverse=True))

    def _files(self, name: str) -> tuple[tuple[int, int, str], ...]:
        """When each file was last written, and its size; the description first, which is written once."""
        folder = self._workspace.arena / name
        places = [folder / "pairs.toml", folder / "pairs.parquet", *sorted((folder / "judgments").glob("*.jsonl"))]
        found = []
        for place in places:
            try:
                stat = os.stat(place)
            except OSError:
                found.append((0, 0, place.name))
            else:
                found.append((stat.st_mtime_ns, stat.st_size, place.name))
        return tuple(found)


def state_of(workspace: Workspace, name: str) -> ArenaState:
    """How far an arena is; one that cannot be read says why."""
    try:
        arena = open_pairs(workspace, name, "arena")
        said, left, known = report(arena), arena.status().open, rule_knows(arena)
    except WorkbenchError as error:
        return ArenaState(name, words=str(error), damaged=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = workspace.arena / name / "pairs.toml"
        return ArenaState(name, words=f"{where}: damaged ({error}). Restore it from a copy.", damaged=True)
    return ArenaState(
        name=name,
        first=said["models"][0],
        second=said["models"][1],
        pairs=said["pairs"],
        judged=said["judged"],
        open=left,
        identical=said["identical"],
        words=verdict_words(said),
        decided=_leader(said) is not None,
        judges=_judges(said),
        rule_knows=known,
    )


def verdict_words(said: Mapping[str, Any]) -> str:
    """What a report says, in one sentence: which model is better, or that no difference can be told yet."""
    rate = said["win_rate"]
    if rate["rate"] is None:
        return "nothing is judged yet"
    name, figures = _rate(said)
    synthetic = ""
    if "rule" in said["origins"]:
        synthetic = "; some by the sample rule" if said["origins"][1:] else "; synthetic: judged by the sample rule"
    counted = f"({rate['pairs']:,} pair{'' if rate['pairs'] == 1 else 's'}{synthetic})"
    if _leader(said) is None:
        return f"no difference can be told yet: {name} {figures} {counted}"
    return f"{name} is better: {figures} {counted}"


def rule_knows(arena: PairSet) -> bool:
    """Whether the sample rule knows this arena's domain, so that it may judge it."""
    from workbench.pair_words import of_sample_domain

    try:
        return of_sample_domain(arena)
    except WorkbenchError:
        return False  # the prompts' dataset is damaged; the arena itself is not


def _leader(said: Mapping[str, Any]) -> int | None:
    """0 or 1 for the model that is better by the interval, None where that cannot be told."""
    rate = said["win_rate"]
    if rate["rate"] is None or rate["low"] is None or rate["high"] is None or rate["low"] <= EVEN <= rate["high"]:
        return None
    return 0 if rate["low"] > EVEN else 1


def _rate(said: Mapping[str, Any]) -> tuple[str, str]:
    """(short name, "0.68, 95 % interval 0.58 to 0.77") of the model with the higher rate."""
    rate = said["win_rate"]
    names = short_names(said["models"])
    share, low, high = rate["rate"], rate["low"], rate["high"]
    place = 0 if share >= EVEN else 1
    if place:
        share, low, high = 1 - share, None if high is None else 1 - high, None if low is None else 1 - low
    ends = "" if low is None or high is None else f", 95 % interval {low:.2f} to {high:.2f}"
    return names[place], f"{share:.2f}{ends}"


def _judges(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{who} ({count:,})" for who, count in said["annotators"].items())


def free_arena_name(workspace: Workspace, first: str, second: str) -> str:
    """A name for an arena of two models that is not taken: dpo-against-sft, dpo-against-sft-2."""
    return free_name(workspace.names("arena"), arena_stem(first, second))


def arena_stem(first: str, second: str) -> str:
    """What an arena of two models is called: dpo-against-sft."""
    short = [re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:24] or "model" for name in (first, second)]
    return f"{short[0]}-against-{short[1]}"
