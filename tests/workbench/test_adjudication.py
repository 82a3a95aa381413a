"""A third voice in a preference set: it stands for votes that differ, never beside them, and only by the rule."""

from __future__ import annotations

import pytest

from workbench.errors import UsageError
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.preference_rule import FreezeRule
from workbench.preferences import freeze, open_preference_set
from workbench.workspace import Workspace, read_toml, write_toml


@pytest.fixture
def made(workspace: Workspace) -> PairSet:
    rows = [CandidatePair(f"q{n}", f"yes {n}", f"no {n}") for n in range(4)]
    return create_pairs(workspace, "s", rows, {"dataset": "d"})


def say(made: PairSet, who: str, verdicts: str, purpose: str = "label") -> None:
    words = {"a": "a", "b": "b", "t": "tie", "s": "skip"}
    with made.journal(who) as journal:
        for pair, letter in zip(made.pairs(), verdicts, strict=True):
            if letter != "-":
                journal.append(pair.id, words[letter], origin="screen", repeat=int(purpose != "label"), purpose=purpose)  # type: ignore[arg-type]


def chosen(workspace: Workspace, made: PairSet, name: str, rule: FreezeRule) -> str:
    """For each pair a, b, both (x), or nothing (-)."""
    frozen = freeze(workspace, "s", name, rule)
    rows = [row for side in ("train", "eval") for row in frozen.rows(side)]
    letters = []
    for pair in made.pairs():
        of_pair = [row for row in rows if row["group"] == pair.group]
        sides = {"a" if row["chosen"] == pair.a else "b" for row in of_pair}
        letters.append("x" if len(sides) == 2 else sides.pop() if sides else "-")
    return "".join(letters)


def test_it_stands_for_votes_that_differ_and_nowhere_else(workspace: Workspace, made: PairSet) -> None:
    say(made, "alice", "aaab")
    say(made, "bob", "abtb")
    say(made, "carol", "bbba", "adjudication")  # where the two agree she is not heard
    assert chosen(workspace, made, "p1", FreezeRule()) == "abbb"
    frozen = open_preference_set(workspace, "p1")
    assert (frozen.info.adjudicated, frozen.info.rule.adjudication) == (2, "decides")
    assert frozen.info.origins == {"screen": 2 + 1 + 1 + 2}, "her voice stands in the place of two"
    assert chosen(workspace, made, "p2", FreezeRule(adjudication="ignore")) == "a--b"
    assert chosen(workspace, made, "p3", FreezeRule(overlap="each")) == "abbb"
    assert chosen(workspace, made, "p4", FreezeRule(overlap="each", adjudication="ignore")) == "axab"
    assert chosen(workspace, made, "p5", FreezeRule(annotators=("alice", "bob"))) == "a--b"


def test_a_third_voice_that_skips_or_differs_from_another_decides_nothing(workspace: Workspace, made: PairSet) -> None:
    say(made, "alice", "aaaa")
    say(made, "bob", "bbba")
    say(made, "carol", "sb--", "adjudication")
    say(made, "dora", "-a--", "adjudication")
    assert chosen(workspace, made, "p", FreezeRule()) == "---a"


def test_a_repeat_is_no_third_voice(workspace: Workspace, made: PairSet) -> None:
    say(made, "alice", "aaaa")
    say(made, "bob", "bbba")
    say(made, "carol", "aaaa", "repeat")
    assert chosen(workspace, made, "p", FreezeRule()) == "---a"


def test_a_set_from_before_says_that_nobody_was_asked(workspace: Workspace, made: PairSet) -> None:
    say(made, "alice", "aaaa")
    path = freeze(workspace, "s", "p").folder / "prefs.toml"
    content = read_toml(path)
    del content["rule"]["adjudication"]
    write_toml(path, content)
    assert open_preference_set(workspace, "p").info.rule.adjudication == "ignore"
    with pytest.raises(UsageError, match="decides or ignore"):
        FreezeRule(adjudication="maybe")  # type: ignore[arg-type]
