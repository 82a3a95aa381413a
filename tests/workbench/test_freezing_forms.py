"""Strength becomes a margin, written answers are chosen, criteria are taken one by one or combined as stated."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from workbench.cli import main
from workbench.errors import UsageError
from workbench.judgments import Verdict
from workbench.label_form import form_of
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.preference_rule import FreezeRule, VerdictsOfPair, criterion_of, decide, rows_of
from workbench.preferences import freeze, open_preference_set
from workbench.workspace import Workspace

ALL = FreezeRule(eval_share=0.0)


def make(workspace: Workspace, count: int = 4, scale: str = "5", criteria: tuple[str, ...] = ()) -> PairSet:
    candidates = [CandidatePair(f"question {n}", f"yes {n}", f"no {n}") for n in range(count)]
    return create_pairs(workspace, "p", candidates, {"made": "here"}, form=form_of(scale, criteria=criteria))


def say(
    made: PairSet, who: str, place: int, verdict: Verdict, strength: int = 1, asked: str = "overall", better: str = ""
) -> None:
    pair = list(made.pairs())[place].id
    with made.journal(who) as journal:
        prepared = journal.prepare(pair, verdict, origin="screen", strength=strength, criterion=asked)
        journal.append_many([prepared._replace(better=better)])


def rows(workspace: Workspace, name: str = "f") -> list[dict[str, Any]]:
    return [dict(row) for side in ("train", "eval") for row in open_preference_set(workspace, name).rows(side)]  # type: ignore[arg-type]


class TestMargins:
    def test_the_mean_strength_of_the_winners_verdicts(self, workspace: Workspace) -> None:
        made = make(workspace)
        for who, verdict, strength in (("x", "a", 2), ("y", "a", 1), ("z", "b", 2)):
            say(made, who, 0, verdict, strength)  # type: ignore[arg-type]
        freeze(workspace, "p", "f", ALL)
        assert [row["margin"] for row in rows(workspace)] == [1.5]
        assert open_preference_set(workspace, "f").info.rule.margins == "strength"

    def test_a_three_way_scale_gives_none_and_a_rule_may_say_none(self, workspace: Workspace) -> None:
        say(make(workspace, scale="3"), "x", 0, "a")
        freeze(workspace, "p", "f", ALL)
        assert rows(workspace)[0]["margin"] is None

    def test_a_rule_without_margins(self, workspace: Workspace) -> None:
        say(make(workspace), "x", 0, "a", 2)
        freeze(workspace, "p", "f", FreezeRule(margins="none", eval_share=0.0))
        assert rows(workspace)[0]["margin"] is None


class TestWrittenAnswers:
    def test_it_is_chosen_over_the_answer_that_lost(self, workspace: Workspace) -> None:
        made = make(workspace)
        say(made, "x", 0, "a", 2, better="mine")
        frozen = freeze(workspace, "p", "f", ALL)
        (row,) = rows(workspace)
        assert (row["chosen"], row["rejected"]) == ("mine", next(iter(made.pairs())).b)
        assert (row["margin"], row["weight"], row["tags"]) == (None, 1.0, {"written": True})
        assert frozen.info.written == 1
        assert frozen.info.counts["train"] == 1

    def test_where_neither_won_it_is_chosen_over_both_at_half_the_weight(self, workspace: Workspace) -> None:
        made = make(workspace)
        say(made, "x", 0, "both_bad", better="mine")
        freeze(workspace, "p", "f", ALL)
        pair = next(iter(made.pairs()))
        assert {(row["chosen"], row["rejected"], row["weight"]) for row in rows(workspace)} == {
            ("mine", pair.a, 0.5), ("mine", pair.b, 0.5),
        }  # fmt: skip

    def test_those_of_two_people_share_the_weight(self) -> None:
        said = VerdictsOfPair(written=["one", "two"])
        said.votes.update(["a", "a"])
        made = rows_of(decide(said, ALL), said, has_strengths=True)
        assert [(row.chosen, row.rejected, row.weight) for row in made] == [("one", "b", 0.5), ("two", "b", 0.5)]

    def test_a_rule_may_ignore_it_and_a_skip_says_nothing(self, workspace: Workspace) -> None:
        made = make(workspace)
        say(made, "x", 0, "a", better="mine")
        say(made, "x", 1, "skip", better="mine, too")
        freeze(workspace, "p", "f", FreezeRule(written="ignore", eval_share=0.0))
        assert [row["chosen"] for row in rows(workspace)] == [next(iter(made.pairs())).a]
        freeze(workspace, "p", "g", ALL)
        assert [row["chosen"] for row in rows(workspace, "g")] == ["mine"]

    def test_the_answers_of_the_training_side_become_a_dataset(self, workspace: Workspace, capsys: Any) -> None:
        made = make(workspace, 12)
        for place in range(12):
            say(made, "x", place, "tie", better=f"answer {place}")
        at = ["--workspace", str(workspace.root), "prefs", "freeze", "p"]
        assert main([*at, "--to", "f", "--sft", "written", "--eval-share", "0.3", "--json"]) == 0
        told = orjson.loads(capsys.readouterr().out)
        train = {row["prompt"] for row in open_preference_set(workspace, "f").rows("train")}
        assert told["sft"] == {"dataset": "written", "rows": len(train)}
        assert 0 < len(train) < 12, "what is held out is not learnt"
        assert main([*at, "--to", "g", "--sft", "written"]) != 0
        assert "g" not in workspace.names("prefs"), "nothing is frozen where the dataset cannot be made"


class TestCriteria:
    def both(self, workspace: Workspace) -> PairSet:
        made = make(workspace, criteria=("helpful", "honest"))
        say(made, "x", 0, "a", 2, "helpful")
        say(made, "x", 0, "b", 1, "honest")
        say(made, "x", 1, "b", 1, "helpful")
        return made

    def test_one_of_them(self, workspace: Workspace) -> None:
        made = self.both(workspace)
        freeze(workspace, "p", "f", FreezeRule(criterion="honest", eval_share=0.0))
        assert [row["chosen"] for row in rows(workspace)] == [next(iter(made.pairs())).b]

    @pytest.mark.parametrize(("weights", "chosen", "margin"), [((1, 1), "a", 0.5), ((1, 3), "b", 0.25)])
    def test_a_stated_combination(
        self, workspace: Workspace, weights: tuple[float, float], chosen: str, margin: float
    ) -> None:
        made = self.both(workspace)
        rule = FreezeRule(criteria=dict(zip(("helpful", "honest"), weights, strict=True)), eval_share=0.0)
        frozen = freeze(workspace, "p", "f", rule)
        (row,) = rows(workspace)
        assert (row["chosen"], row["margin"]) == (getattr(next(iter(made.pairs())), chosen), margin)
        assert frozen.info.counts["unjudged"] == 3, "a pair with one answer of two is not judged"
        assert open_preference_set(workspace, "f").info.rule == rule, "the rule is written out"

    def test_equal_weights_on_both_sides_are_a_tie(self, workspace: Workspace) -> None:
        self.both(workspace)
        with pytest.raises(UsageError, match="1 tie, 3 unjudged"):
            freeze(workspace, "p", "f", FreezeRule(criteria={"helpful": 1, "honest": 2}, eval_share=0.0))

    def test_without_one_the_questions_are_named(self, workspace: Workspace) -> None:
        self.both(workspace)
        with pytest.raises(UsageError, match="questions are helpful, honest: --criterion NAME"):
            freeze(workspace, "p", "f", ALL)

    @pytest.mark.parametrize(
        ("written", "rule"),
        [("", {}), ("honest", {"criterion": "honest"}), ("a:2,b", {"criteria": {"a": 2.0, "b": 1.0}})],
    )
    def test_as_a_command_has_it(self, written: str, rule: dict[str, Any]) -> None:
        assert criterion_of(written) == rule

    @pytest.mark.parametrize(
        ("written", "message"), [("a:x", "no number"), ("a:1,a:2", "each question once"), ("a:0,b", "above 0")]
    )
    def test_a_combination_that_cannot_be(self, written: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            FreezeRule(**criterion_of(written))
