"""Notes, revision, redo and several questions: each is on the disk, and nothing that was said is lost."""

from __future__ import annotations

import pytest

from workbench.errors import UsageError
from workbench.judgment_lines import Judgment
from workbench.judgments import Showing
from workbench.label_form import form_of
from workbench.label_notes import Drafts, Notes
from workbench.labeling import Sitting
from workbench.labeling_list import listed_pairs
from workbench.labeling_state import Said
from workbench.labeling_words import question_words, state_words
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.workspace import Workspace

FULL = Notes("so so", ("too long", "mine"), True, "a better one\n```py\nx = 1\n```")


def make(workspace: Workspace, count: int = 6, scale: str = "3", criteria: tuple[str, ...] = ()) -> PairSet:
    candidates = [CandidatePair(f"question {n}", f"yes {n}", f"no {n}") for n in range(count)]
    return create_pairs(workspace, "support", candidates, {"dataset": "d"}, form=form_of(scale, criteria=criteria))


def standing(made: PairSet) -> dict[Showing, Judgment]:
    return dict(made.judgments().current)


class TestStrength:
    def test_it_is_kept_and_shown(self, workspace: Workspace) -> None:
        made = make(workspace, scale="5")
        with Sitting(made, "alice") as sitting:
            assert sitting.judge("left", strength=2).said.words == "left much better"
            sitting.judge("right", strength=1)
            sitting.judge("tie")
        assert sorted(one.strength for one in standing(made).values()) == [1, 1, 2]
        with Sitting(made, "alice") as sitting:
            assert sitting.undo() == Said("tie")
            assert sitting.undo() == Said("right", 1)
            assert sitting.undo() == Said("left", 2)

    def test_a_scale_has_no_more_than_it_says(self, workspace: Workspace) -> None:
        with Sitting(make(workspace), "alice") as sitting:
            with pytest.raises(UsageError, match="has none such"):
                sitting.judge("left", strength=2)
            assert sitting.counts.done == 0


class TestNotes:
    def test_they_go_with_the_verdict_and_come_back_with_undo(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as sitting:
            sitting.add(FULL)
            sitting.judge("left")
            assert sitting.notes == Notes()
            (said,) = standing(made).values()
            assert (said.comment, said.tags, said.flagged, said.better) == tuple(FULL.__dict__.values())
            sitting.undo()
            assert sitting.notes == FULL
            sitting.redo()
            assert next(iter(standing(made).values())).better == FULL.better

    def test_what_was_added_waits_for_a_verdict_on_the_disk(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as sitting:
            sitting.add(FULL)
            sitting.go_to(4)
            assert sitting.notes == Notes()
            sitting.go_to(1)
            assert sitting.notes == FULL
        with Sitting(made, "alice") as sitting:
            assert sitting.notes == FULL
            assert listed_pairs(sitting)[0].notes == "a draft"
            sitting.judge("tie")
        with Sitting(made, "bob") as sitting:
            assert sitting.notes == Notes(), "one's notes are one's own"
        assert Drafts(made, "alice").pairs() == []

    def test_a_damaged_draft_stops_nobody_and_is_kept(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as sitting:
            sitting.add(FULL)
        (draft,) = (made.folder / "drafts").iterdir()
        draft.write_bytes(draft.read_bytes()[:20])
        with Sitting(made, "alice") as sitting:
            assert sitting.notes == Notes()
        assert [path.suffix for path in (made.folder / "drafts").iterdir()] == [".damaged"]


class TestBackAndForth:
    def test_undo_and_redo_go_all_the_way_and_a_new_verdict_ends_redo(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as sitting:
            for verdict in ("left", "right", "tie", "both_bad", "skip", "left"):
                sitting.judge(verdict)  # type: ignore[arg-type]
            after = {showing: one.verdict for showing, one in standing(made).items()}
            for _ in range(6):
                sitting.undo()
            assert standing(made) == {}
            assert [sitting.redo().verdict for _ in range(6)] == ["left", "right", "tie", "both_bad", "skip", "left"]
            assert sitting.present is None
            assert {showing: one.verdict for showing, one in standing(made).items()} == after
            with pytest.raises(UsageError, match="nothing was undone"):
                sitting.redo()
            sitting.undo()
            sitting.judge("tie")
            with pytest.raises(UsageError, match="nothing was undone"):
                sitting.redo()

    def test_a_revision_replaces_and_undo_restores_what_stood(self, workspace: Workspace) -> None:
        made = make(workspace)
        with Sitting(made, "alice") as sitting:
            sitting.judge("left")
            sitting.judge("right")
            third = sitting.present
            sitting.go_to(1)
            assert sitting.revises
            assert state_words(sitting) == "support · alice · pair 1: left better · blind"
            sitting.judge("tie")
            assert sitting.present == third, "on with what is open"
            assert [one.said for one in listed_pairs(sitting)][:3] == ["tie", "right better", ""]
            assert sitting.undo() == Said("tie")
            assert sitting.revises
            assert listed_pairs(sitting)[0].said == "left better"
            sitting.redo()
            assert listed_pairs(sitting)[0].said == "tie"
            assert sitting.counts.done == 2

    def test_an_open_pair_that_one_goes_to_is_gone_on_from_and_what_was_passed_comes_last(
        self, workspace: Workspace
    ) -> None:
        with Sitting(make(workspace), "alice") as sitting:
            sitting.go_to(5)
            numbers = []
            while sitting.present is not None:
                numbers.append(sitting.number)
                sitting.judge("left")
        assert numbers == [5, 6, 1, 2, 3, 4]

    @pytest.mark.parametrize("number", [0, 7, -1])
    def test_a_pair_that_is_not_there(self, workspace: Workspace, number: int) -> None:
        with Sitting(make(workspace), "alice") as sitting, pytest.raises(UsageError, match="the pairs 1 to 6"):
            sitting.go_to(number)


class TestSeveralQuestions:
    CRITERIA = ("helpful=Which helps more?", "honest")

    def test_each_is_asked_in_turn_and_kept_by_its_name(self, workspace: Workspace) -> None:
        made = make(workspace, 2, criteria=self.CRITERIA)
        with Sitting(made, "alice") as sitting:
            first = sitting.present
            assert question_words(sitting) == "1 of 2  helpful: Which helps more?"
            sitting.judge("left")
            assert sitting.present == first
            assert question_words(sitting) == "2 of 2  honest"
            assert sitting.counts.done == 0
            sitting.judge("tie")
            assert sitting.present != first
            assert sitting.counts.done == 1
            assert listed_pairs(sitting)[0].said == "helpful left better, honest tie"
            sitting.undo()
            assert (sitting.present, sitting.question.name) == (first, "honest")
            sitting.undo()
            assert (sitting.present, sitting.question.name) == (first, "helpful")
            sitting.judge("right")
        assert {showing.criterion for showing in standing(made)} == {"helpful"}
        with Sitting(made, "alice") as sitting:
            assert (sitting.present, sitting.question.name) == (first, "honest"), "one goes on in the middle of a pair"

    def test_a_skip_is_of_the_rest_of_the_pair_and_one_deed(self, workspace: Workspace) -> None:
        made = make(workspace, 2, criteria=self.CRITERIA)
        with Sitting(made, "alice") as sitting:
            sitting.judge("skip")
            assert [one.verdict for one in standing(made).values()] == ["skip", "skip"]
            sitting.judge("left")
            sitting.judge("skip")
            assert sitting.present is None
            assert sitting.counts.skipped == 2
            assert sitting.show_skipped_again() == 2
            names = []
            while sitting.present is not None:
                names.append((sitting.number, sitting.question.name))
                sitting.judge("tie")
            assert names == [(1, "helpful"), (1, "honest"), (2, "honest")]
            for _ in range(5):
                sitting.undo()
            sitting.undo()
        assert standing(made) == {}
