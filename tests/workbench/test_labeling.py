"""A sitting: sides and columns agree, verdicts are on the disk first, and nothing is lost where saving fails."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import replace

import pytest

from workbench.errors import DiskFull, ReadOnly, UsageError, WorkbenchError
from workbench.judgments import Showing
from workbench.label_notes import Notes
from workbench.labeling import Sitting
from workbench.labeling_opening import open_sitting
from workbench.labeling_state import JudgedElsewhere, Said, ScreenVerdict
from workbench.labeling_subject import open_subject
from workbench.labeling_words import end_page, far_words, state_words
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.workspace import Workspace


def make(workspace: Workspace, name: str = "support", count: int = 6) -> PairSet:
    candidates = [CandidatePair(f"question {n}", f"yes {n}", f"no {n}", "model-x", "model-y") for n in range(count)]
    return create_pairs(workspace, name, candidates, {"dataset": "d"})


def verdicts(made: PairSet) -> dict[str, str]:
    return {showing.pair: judgment.verdict for showing, judgment in made.judgments().current.items()}


def test_the_side_that_was_chosen_is_the_column_that_is_kept(workspace: Workspace) -> None:
    made = make(workspace, count=40)
    pairs = {pair.id: pair for pair in made.pairs()}
    chosen: dict[str, str] = {}
    with Sitting(made, "alice") as sitting:
        while (shown := sitting.present) is not None:
            side: ScreenVerdict = "left" if len(chosen) % 3 else "right"
            chosen[shown.id] = shown.left if side == "left" else shown.right
            sitting.judge(side)
    orders = Counter(judgment.order for judgment in made.judgments().current.values())
    assert min(orders["ab"], orders["ba"]) >= 8, "both orders occur"
    for pair, verdict in verdicts(made).items():
        assert (pairs[pair].a if verdict == "a" else pairs[pair].b) == chosen[pair]
    assert {judgment.origin for judgment in made.judgments().current.values()} == {"screen"}


def test_the_draw_is_of_the_pair_and_the_annotator(workspace: Workspace) -> None:
    made = make(workspace, count=60)
    first, again, other = Sitting(made, "alice"), Sitting(made, "alice"), Sitting(made, "bob")
    ids = [pair.id for pair in made.pairs()]
    assert [first.order_of(one) for one in ids] == [again.order_of(one) for one in ids]
    assert [first.order_of(one) for one in ids] != [other.order_of(one) for one in ids]
    assert [first.order_of(one) for one in ids] != [first.order_of(one, repeat=1) for one in ids]


def test_it_goes_on_where_it_stopped_and_others_do_not_count(workspace: Workspace) -> None:
    made = make(workspace)
    with Sitting(made, "bob") as sitting:
        sitting.judge("tie")
    with Sitting(made, "alice") as sitting:
        sitting.judge("left")
        sitting.judge("both_bad")
        before = sitting.present
    with Sitting(made, "alice") as sitting:
        assert sitting.present == before
        assert sitting.counts.done == 2
        assert len(list(made.judgments_folder.glob("alice.*"))) == 1, "the journal is continued"


def test_undo_opens_the_pair_as_it_looked_also_of_an_earlier_sitting(workspace: Workspace) -> None:
    made = make(workspace)
    with Sitting(made, "alice") as sitting:
        first = sitting.present
        sitting.add(Notes(comment="unsure"))
        sitting.judge("left")
    with Sitting(made, "alice") as sitting:
        second = sitting.present
        sitting.judge("tie")
        assert sitting.undo() == Said("tie")
        assert sitting.present == second
        assert sitting.undo() == Said("left")
        assert sitting.present == first
        assert sitting.notes.comment == "unsure"
        with pytest.raises(UsageError):
            sitting.undo()
        assert verdicts(made) == {}
        sitting.judge("right")
        assert sitting.present == second
    assert len(verdicts(made)) == 1


def test_comments(workspace: Workspace) -> None:
    made = make(workspace)
    with Sitting(made, "alice") as sitting:
        sitting.add(Notes(comment="short"))
        sitting.judge("left")
        sitting.judge("tie")
        sitting.amend("neither says why")
        assert sitting.counts.done == 2
    assert [one.comment for one in made.judgments().current.values()] == ["short", "neither says why"]
    assert sorted(verdicts(made).values())[-1] == "tie"


def test_skipped_pairs_come_once_more_on_request(workspace: Workspace) -> None:
    made = make(workspace, count=3)
    with Sitting(made, "alice") as sitting:
        said: tuple[ScreenVerdict, ...] = ("skip", "left", "skip")
        for verdict in said:
            sitting.judge(verdict)
        assert sitting.present is None
        assert sitting.show_skipped_again() == 2
        sitting.judge("right")
        sitting.judge("skip")
        assert sitting.present is None
        assert sitting.counts.by_verdict == {"left": 1, "right": 1, "skip": 1}


def test_pace_and_what_is_left(workspace: Workspace) -> None:
    with Sitting(make(workspace), "alice") as sitting:
        sitting.judge("left", 60)
        sitting.judge("left", 60)
        assert sitting.counts.per_hour == 0
        sitting.judge("left", 60)
        assert (round(sitting.counts.per_hour), sitting.counts.left) == (60, 3)
        assert far_words(sitting.counts) == "4 of 6 · 60/h · 3m 00s left"
        assert state_words(sitting) == "support · alice · blind"


class TestErrors:
    def test_a_full_disk(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make(workspace)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with Sitting(made, "alice") as sitting:
            sitting.judge("left")
            before = sitting.present
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", full)
                with pytest.raises(DiskFull):
                    sitting.judge("left")
            assert sitting.present == before
            assert len(verdicts(made)) == 1
            sitting.judge("tie")
        assert sorted(verdicts(made).values())[-1] == "tie"

    def test_a_failed_sync_keeps_the_pair_and_the_next_key_decides(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from workbench import judgments

        made = make(workspace)

        def broken(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with Sitting(made, "alice") as sitting:
            before = sitting.present
            assert before is not None
            with monkeypatch.context() as patch:
                patch.setattr(judgments, "_sync_data", broken)
                with pytest.raises(WorkbenchError, match="disk failed"):
                    sitting.judge("left")
            assert sitting.present == before
            sitting.judge("tie")
        assert verdicts(made) == {before.id: "tie"}

    def test_a_journal_that_was_removed(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as sitting:
            sitting.open_journal()
            for path in made.judgments_folder.glob("*"):
                path.unlink()
            before = sitting.present
            with pytest.raises(WorkbenchError, match="removed"):
                sitting.judge("left")
            assert sitting.present == before
            sitting.judge("left")
        assert len(verdicts(made)) == 1

    def test_a_read_only_workspace(self, workspace: Workspace) -> None:
        made = make(workspace)
        closed = replace(workspace, read_only_reason="it is a copy")
        sitting = open_sitting(closed, "support", "alice")
        assert sitting is not None
        before = sitting.present
        with pytest.raises(ReadOnly):
            sitting.judge("left")
        assert sitting.present == before
        assert verdicts(made) == {}


class TestTwoProgramsUnderOneName:
    def test_a_pair_judged_meanwhile_is_not_judged_again_and_u_takes_it_back(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as one, Sitting(made, "alice") as two:
            one.open_journal()
            two.open_journal()
            first = one.present
            assert first is not None
            two.judge("left")
            with pytest.raises(JudgedElsewhere, match="left better"):
                one.judge("right")
            assert one.present != first
            assert len(made.judgments().conflicts) == 0
            one.undo()
            assert one.present == first
            one.judge("tie")
        assert verdicts(made) == {first.id: "tie"}
        assert made.judgments().stands(Showing(first.id, "alice"))

    def test_a_pair_judged_there_is_not_shown_here(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as one, Sitting(made, "alice") as two:
            two.judge("left")
            two.judge("left")
            two.undo()
            here = one.present
            with pytest.raises(JudgedElsewhere):
                one.judge("left")
            assert one.present == two.present != here
            one.judge("right")
        assert len(verdicts(made)) == 2
        assert made.judgments().conflicts == {}


def test_without_a_subject_the_set_with_open_pairs_is_taken(workspace: Workspace) -> None:
    assert open_subject(workspace, "alice") == ""
    assert open_sitting(workspace, "", "alice") is None
    make(workspace, "one", 1)
    make(workspace, "two", 1)
    with Sitting(make(workspace, "three", 1), "alice") as sitting:
        sitting.judge("left")
    assert open_subject(workspace, "alice") in ("one", "two")


def test_the_end_page_names_models_only_of_an_arena_that_is_judged(workspace: Workspace) -> None:
    models = {"models": [{"source": "run:old"}, {"source": "run:new"}]}
    candidates = [CandidatePair(f"q{n}", f"x{n}", f"y{n}", "run:old", "run:new") for n in range(3)]
    create_pairs(workspace, "arena-1", candidates, models, kind="arena")
    sitting = open_sitting(workspace, "arena/arena-1", "alice")
    assert sitting is not None
    with sitting:
        while sitting.present is not None:
            sitting.judge("left")
        page = "\n".join(text for text, _ in end_page(sitting))
    assert "run:old against run:new" in page
    assert "interval" in page
