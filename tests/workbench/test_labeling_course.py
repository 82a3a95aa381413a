"""Several people on one set: what each is shown, in whose turn, and what never counts as a first verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from workbench import labeling_course
from workbench.cli import main
from workbench.errors import UsageError, WorkbenchError
from workbench.judgments import Showing, is_first
from workbench.labeling import Sitting
from workbench.labeling_list import listed_pairs, said_words
from workbench.labeling_opening import open_sitting
from workbench.labeling_subject import ADJUDICATE, adjudication_of, open_subject
from workbench.labeling_words import end_page
from workbench.pair_margins import read_margins, write_margins
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.pair_sharing import REPEAT_AFTER, Sharing
from workbench.preferences import freeze
from workbench.workspace import Workspace


def make(workspace: Workspace, count: int, sharing: Sharing, known: int = 0) -> PairSet:
    candidates = [CandidatePair(f"question {n}", f"yes {n}", f"no {n}", "model-x", "model-y") for n in range(count)]
    keys = [CandidatePair(f"key {n}", f"right {n}", f"wrong {n}", imported="a") for n in range(known)]
    return create_pairs(workspace, "s", candidates, {"dataset": "d"}, sharing=sharing, calibration=keys)


@pytest.fixture
def sittings() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def shown(sitting: Sitting) -> str:
    assert sitting.present is not None
    return sitting.present.id


def judge_all(sitting: Sitting) -> list[str]:
    """Judge left until nothing is left; the pairs in the order in which they were shown."""
    seen = []
    while sitting.present is not None:
        seen.append(shown(sitting))
        sitting.judge("left", 1.0)
    return seen


def disagreed(workspace: Workspace, count: int, agreed: int = 0) -> tuple[PairSet, list[str]]:
    """A set on which alice and bob differ, but for its first pairs; the ids of those on which they do."""
    made = make(workspace, count + agreed, Sharing(overlap=2))
    ids = [pair.id for pair in made.pairs()]
    for who, verdict in (("alice", "a"), ("bob", "b")):
        with made.journal(who) as journal:
            for place, pair in enumerate(ids):
                journal.append(pair, "tie" if place < agreed else verdict, origin="screen")  # type: ignore[arg-type]
    return made, ids[agreed:]


class TestOverlap:
    def test_a_pair_is_before_as_many_people_as_its_overlap(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 4, Sharing(overlap=2))
        ids = [pair.id for pair in made.pairs()]
        alice, bob, carol = (sittings.enter_context(Sitting(made, who)) for who in ("alice", "bob", "carol"))
        assert [shown(alice), shown(bob), shown(carol)] == [ids[0], ids[0], ids[1]]
        alice.judge("left")
        bob.judge("left")
        assert judge_all(carol) == ids[1:], "the first pair is judged by two"
        assert (judge_all(alice), judge_all(bob)) == ([ids[1], ids[3]], [ids[2]]), "2 is with carol and before bob"
        first = made.judgments().first
        assert {pair: sum(one.pair == pair for one in first) for pair in ids} == dict.fromkeys(ids, 2)

    def test_a_typed_verdict_keeps_to_the_overlap(
        self, workspace: Workspace, sittings: ExitStack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = make(workspace, 2, Sharing(overlap=1))
        alice = sittings.enter_context(Sitting(made, "alice"))
        typed = ["pairs", "judge", "s", "--pair", shown(alice), "--workspace", str(workspace.root), "--as"]
        assert main([*typed, "bob", "--verdict", "a"]) == 2
        assert "as many people as s wants (1)" in capsys.readouterr().err
        alice.judge("left")
        assert main([*typed, "bob", "--verdict", "a"]) == 2
        assert main([*typed, "alice", "--verdict", "tie"]) == 0, "one's own verdict can be revised"
        assert [(one.annotator, one.verdict) for one in made.judgments().first] == [("alice", "tie")]

    def test_undo_takes_the_pair_back_first_and_redo_gives_it_again(
        self, workspace: Workspace, sittings: ExitStack
    ) -> None:
        made = make(workspace, 3, Sharing(overlap=1))
        alice = sittings.enter_context(Sitting(made, "alice"))
        first = shown(alice)
        alice.judge("left")
        second = shown(alice)
        bob = sittings.enter_context(Sitting(made, "bob"))
        third = shown(bob)
        assert len({first, second, third}) == 3
        alice.undo()
        assert shown(alice) == first
        bob.judge("right")
        assert shown(bob) == second, "alice let it go"
        alice.redo()
        assert alice.present is None
        assert (alice.counts.left, end_page(alice)[0][0].partition(" before")[0]) == (1, "1 pair is")
        bob.close()
        alice.go_on()
        assert shown(alice) == second

    def test_what_others_judged_meanwhile_cannot_be_done_again(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 3, Sharing(overlap=1))
        alice = sittings.enter_context(Sitting(made, "alice"))
        pair = shown(alice)
        alice.judge("left")
        alice.undo()
        alice.go_to(3)
        with Sitting(made, "bob") as bob:
            assert shown(bob) == pair
            bob.judge("right")
        before = shown(alice)
        with pytest.raises(UsageError, match="judged it meanwhile"):
            alice.redo()
        assert shown(alice) == before
        assert [one.annotator for one in made.judgments().first if one.pair == pair] == ["bob"]

    def test_going_to_a_pair_that_is_before_another_is_refused(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 3, Sharing(overlap=1))
        alice, bob = (sittings.enter_context(Sitting(made, who)) for who in ("alice", "bob"))
        with pytest.raises(UsageError, match="before others"):
            bob.go_to(alice.number)
        bob.judge("left")
        alice.judge("left")
        bob.go_to(2)
        assert bob.revises, "one's own verdict can be looked at again"

    def test_a_claim_that_fails_loses_no_verdict(
        self, workspace: Workspace, sittings: ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = make(workspace, 3, Sharing(overlap=1))
        alice = sittings.enter_context(Sitting(made, "alice"))

        def full(*_: object) -> str:
            raise WorkbenchError("no space left while claiming a pair")

        with monkeypatch.context() as broken:
            broken.setattr(labeling_course.Claims, "choose", full)
            assert alice.judge("left").number == 1
            assert alice.present is None
            assert "no space left" in end_page(alice)[0][0]
        alice.go_on()
        assert alice.present is not None
        assert len(made.judgments().first) == 1

    def test_a_full_disk_keeps_nobody_from_looking(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise WorkbenchError("no space left while claiming pairs")

        monkeypatch.setattr(labeling_course, "Claims", full)
        made = make(workspace, 3, Sharing())
        with Sitting(made, "alice") as sitting:
            assert sitting.present is not None
        shared = create_pairs(workspace, "t", [CandidatePair("q", "a", "b")], {"dataset": "d"}, sharing=Sharing(1))
        with pytest.raises(WorkbenchError, match="no space left"):
            Sitting(shared, "alice")

    def test_the_same_name_in_two_programs_is_told(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 3, Sharing(overlap=2))
        first, second = (sittings.enter_context(Sitting(made, "alice")) for _ in range(2))
        assert (first.notice, second.notice) == ("", "alice is at work in another program, too")
        assert shown(first) != shown(second)

    def test_a_read_only_workspace_can_be_looked_at(self, workspace: Workspace) -> None:
        made = make(workspace, 3, Sharing(overlap=1))
        closed = replace(made, workspace=replace(workspace, read_only_reason="it is a copy"))
        with Sitting(closed, "alice") as sitting, pytest.raises(WorkbenchError, match="it is a copy"):
            sitting.judge("left")
        assert not (made.folder / "claims").exists()


class TestExtraShowings:
    def test_repeats_come_swapped_after_a_while_and_are_no_first_verdicts(
        self, workspace: Workspace, sittings: ExitStack
    ) -> None:
        made = make(workspace, 40, Sharing(repeat_share=0.2))
        alice = sittings.enter_context(Sitting(made, "alice"))
        total, texts, seen = alice.counts.total, {}, []
        while alice.present is not None:
            assert alice.counts.total == total, "the count tells nobody that a pair is a repeat"
            pair = alice.present
            if pair.id in texts:
                assert (pair.left, pair.right) == texts[pair.id][::-1], "swapped"
            texts[pair.id] = (pair.left, pair.right)
            seen.append(pair.id)
            alice.judge("left", 1.0)
        again = [pair for pair in dict.fromkeys(seen) if seen.count(pair) == 2]
        assert len(seen) == total == 40 + len(again)
        assert again
        gaps = [seen.index(pair, seen.index(pair) + 1) - seen.index(pair) for pair in again]
        assert min(gaps[: len(gaps) // 2]) >= REPEAT_AFTER
        said = made.judgments()
        assert (len(said.first), made.status().judged) == (40, 40)
        repeats = [one for one in said.current.values() if not is_first(one)]
        assert {(one.repeat, one.purpose) for one in repeats} == {(1, "repeat")}
        # Always left, and swapped: whoever looks at sides alone disagrees with themselves every time.
        assert all(said.current[Showing(one.pair, "alice")].verdict != one.verdict for one in repeats)

    def test_it_goes_on_where_it_was(self, workspace: Workspace) -> None:
        made = make(workspace, 40, Sharing(repeat_share=0.2), known=4)
        with Sitting(made, "alice") as whole:
            expected = judge_all(whole)
        rows = [CandidatePair(pair.prompt, pair.a, pair.b) for pair in made.pairs()]
        known, shared = list(made.calibration()), Sharing(repeat_share=0.2)
        other = create_pairs(workspace, "t", rows, {"dataset": "d"}, sharing=shared, calibration=known)
        seen: list[str] = []
        while True:
            with Sitting(other, "alice") as part:
                for _ in range(17):
                    if part.present is not None:
                        seen.append(shown(part))
                        part.judge("left", 1.0)
                if part.present is None:
                    break
        assert seen == expected

    def test_calibration_pairs_come_once_and_enter_nothing(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 30, Sharing(), known=5)
        alice = sittings.enter_context(Sitting(made, "alice"))
        assert alice.counts.total == 35
        seen = judge_all(alice)
        known = {pair.id for pair in made.calibration()}
        places = [place for place, pair in enumerate(seen) if pair in known]
        assert (len(seen), len(places)) == (35, 5)
        assert min(places) < 25, "mixed in"
        assert made.status().judged == 30
        counts = freeze(workspace, "s", "p").info.counts
        assert counts["train"] + counts["eval"] == 30

    def test_undo_of_a_repeat_shows_the_repeat_again(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 3, Sharing(repeat_share=1.0))
        alice = sittings.enter_context(Sitting(made, "alice"))
        for _ in range(3):
            alice.judge("left")
        repeated = alice.present
        alice.judge("right")
        alice.undo()
        assert alice.present == repeated
        alice.judge("tie")
        judge_all(alice)
        said = made.judgments()
        assert repeated is not None
        assert said.current[Showing(repeated.id, "alice", 1)].verdict == "tie"
        assert said.current[Showing(repeated.id, "alice", 0)].verdict in ("a", "b")

    def test_a_skipped_pair_does_not_return(self, workspace: Workspace, sittings: ExitStack) -> None:
        alice = sittings.enter_context(Sitting(make(workspace, 3, Sharing(repeat_share=1.0)), "alice"))
        for _ in range(3):
            alice.judge("skip")
        assert (alice.present, alice.counts.left) == (None, 0)


class TestWhichIsNext:
    def test_how_a_pair_was_picked_stands_in_its_line(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 30, Sharing(next_pair="active", random_share=0.3))
        ids = [pair.id for pair in made.pairs()]
        write_margins(made, {pair: float(number + 1) for number, pair in enumerate(reversed(ids))}, "run:x@4")
        seen = judge_all(sittings.enter_context(Sitting(made, "alice")))
        picked = {one.pair: one.picked for one in made.judgments().first}
        active = [pair for pair in seen if picked[pair] == "active"]
        assert set(picked.values()) == {"active", "random"}
        assert active == sorted(active, key=ids.index, reverse=True), "the smallest margin first"

    def test_damaged_margins_are_named(self, workspace: Workspace) -> None:
        made = make(workspace, 3, Sharing(next_pair="active"))
        assert read_margins(made) == {}
        (made.folder / "margins.json").write_text("[]")
        with pytest.raises(WorkbenchError, match="rank the pairs again"):
            Sitting(made, "alice")


class TestAdjudication:
    def test_a_third_voice_settles_what_two_disagree_on(self, workspace: Workspace, sittings: ExitStack) -> None:
        made = make(workspace, 4, Sharing(overlap=2))
        ids = [pair.id for pair in made.pairs()]
        for who, verdicts in (("alice", "abab"), ("bob", "abba")):
            with made.journal(who) as journal:
                for pair, verdict in zip(ids, verdicts, strict=True):
                    journal.append(pair, verdict, origin="screen")  # type: ignore[arg-type]
        with Sitting(made, "alice", adjudicates=True) as own:
            assert own.present is None, "whoever judged a pair is no third voice on it"
        carol = sittings.enter_context(Sitting(made, "carol", adjudicates=True))
        assert (carol.name, carol.counts.total) == (f"{ADJUDICATE}s", 2)
        assert judge_all(carol) == ids[2:]
        assert end_page(carol)[0][0].startswith("All 2 disagreements of s are judged by carol")
        lines = [one for one in made.judgments().current.values() if one.annotator == "carol"]
        assert {(one.purpose, one.repeat) for one in lines} == {("adjudication", 1)}
        with Sitting(made, "dora", adjudicates=True) as late:
            assert late.present is None
        carol.undo()
        carol.close()
        with Sitting(made, "dora", adjudicates=True) as late:
            assert shown(late) == ids[3]
        with Sitting(made, "carol") as first_hand:
            assert first_hand.counts.done == 0, "an adjudication is no verdict of her own"

    def test_two_third_voices_at_once_never_have_the_same_pair(self, workspace: Workspace, sittings: ExitStack) -> None:
        made, ids = disagreed(workspace, 6)
        carol, dora = (sittings.enter_context(Sitting(made, who, adjudicates=True)) for who in ("carol", "dora"))
        seen: dict[str, list[str]] = {"carol": [], "dora": []}
        for turn in range(6):
            first, second = (carol, dora) if turn % 3 else (dora, carol)
            sitting, other = (first, second) if first.present else (second, first)
            assert other.present is None or shown(sitting) != shown(other)
            seen[sitting.annotator].append(shown(sitting))
            sitting.judge("left")
        assert sorted(seen["carol"] + seen["dora"]) == sorted(ids), "each once"
        assert (carol.present, dora.present) == (None, None)

    def test_a_skip_settles_nothing_and_a_verdict_that_is_undone_opens_it_for_the_others(
        self, workspace: Workspace, sittings: ExitStack
    ) -> None:
        made, ids = disagreed(workspace, 2)
        carol, dora = (sittings.enter_context(Sitting(made, who, adjudicates=True)) for who in ("carol", "dora"))
        carol.judge("skip")
        assert carol.present is None, "the other is before dora"
        dora.judge("left")
        assert shown(dora) == ids[0], "which carol skipped"
        assert carol.show_skipped_again() == 0, "it is before dora now"
        dora.judge("left")
        dora.undo()
        dora.close()
        assert carol.show_skipped_again() == 1
        assert shown(carol) == ids[0]

    def test_a_number_and_the_list_are_of_the_disagreements(self, workspace: Workspace, sittings: ExitStack) -> None:
        made, ids = disagreed(workspace, 3, agreed=2)
        carol = sittings.enter_context(Sitting(made, "carol", adjudicates=True))
        assert [one.number for one in listed_pairs(carol)] == [1, 2, 3]
        carol.go_to(3)
        assert (carol.number, shown(carol)) == (3, ids[-1])
        carol.judge("left")
        [line] = [one for one in made.judgments().current.values() if one.annotator == "carol"]
        assert (line.pair, line.purpose, line.repeat) == (ids[-1], "adjudication", 1)
        assert said_words(carol, 3) == "left better"
        with pytest.raises(UsageError, match="1 to 3"):
            carol.go_to(4)

    def test_the_pair_that_was_named_comes_first(self, workspace: Workspace, sittings: ExitStack) -> None:
        ids = disagreed(workspace, 3, agreed=1)[1]

        def open_at(pair: str, who: str) -> Sitting:
            sitting = open_sitting(workspace, adjudication_of("s", pair), who)
            assert sitting is not None
            sittings.enter_context(sitting)
            return sitting

        carol = open_at(ids[2], "carol")
        assert (shown(carol), carol.missed, carol.name) == (ids[2], "", f"{ADJUDICATE}s")
        dora = open_at(ids[2], "dora")
        assert shown(dora) == ids[0]
        assert "before another person" in dora.notice
        erin = open_at("f" * 16, "erin")
        assert shown(erin) == ids[1], "a place that cannot be had costs nobody the pair that is shown"
        assert "settled, or your own" in erin.notice

    def test_a_pair_that_cannot_be_had_leaves_the_one_that_is_shown_with_its_claim(
        self, workspace: Workspace, sittings: ExitStack
    ) -> None:
        made = make(workspace, 3, Sharing(overlap=1))
        ids = [pair.id for pair in made.pairs()]
        alice, bob = (sittings.enter_context(Sitting(made, who)) for who in ("alice", "bob"))
        with pytest.raises(UsageError, match="before others"):
            alice.go_to(2)
        assert (shown(alice), shown(bob)) == (ids[0], ids[1])
        with pytest.raises(UsageError, match="before others"):
            bob.go_to(1)

    def test_a_set_wants_labeling_though_its_repeats_are_done(self, workspace: Workspace) -> None:
        made = make(workspace, 2, Sharing(repeat_share=1.0))
        with Sitting(made, "alice") as alice:
            alice.judge("left")
        with made.journal("alice") as journal:
            journal.append(next(made.pairs()).id, "a", origin="screen", repeat=1, purpose="repeat")
        assert open_subject(workspace, "alice") == "s"
