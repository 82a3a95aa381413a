"""What an owner watches: the same report as the command's, read anew only where files changed; disagreements."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from workbench import annotator_view
from workbench.annotator_report import report_of
from workbench.annotator_view import AnnotatorReader
from workbench.errors import WorkbenchError
from workbench.labeling import Sitting
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.pair_sharing import Sharing
from workbench.workspace import Workspace

WORDS = {"a": "a", "b": "b", "t": "tie", "s": "skip"}


@pytest.fixture
def made(workspace: Workspace) -> PairSet:
    rows = [CandidatePair(f"question\n{n}", f"yes {n}", f"no {n}") for n in range(5)]
    return create_pairs(workspace, "s", rows, {"dataset": "d"}, sharing=Sharing(overlap=2))


def say(made: PairSet, who: str, verdicts: str) -> list[str]:
    ids = [pair.id for pair in made.pairs()]
    with made.journal(who) as journal:
        for pair, letter in zip(ids, verdicts, strict=True):
            if letter != "-":
                journal.append(pair, WORDS[letter], origin="screen", order="ab")  # type: ignore[arg-type]
    return ids


def test_it_is_the_report_of_the_command_and_of_who_is_there(workspace: Workspace, made: PairSet) -> None:
    say(made, "alice", "aabbs")
    say(made, "bob", "abb--")
    view = AnnotatorReader(workspace, "s", "owner").read()
    assert view is not None
    assert repr(view.report) == repr(report_of(made))  # by words: a NaN is not equal to itself
    assert (view.status.judged, view.status.open, view.overlap, view.full) == (4, 0, 2, 3)
    [one] = view.disagreements
    assert (one.number, one.people, one.criteria, one.state("owner")) == (2, ("alice", "bob"), ("overall",), "open")
    assert one.prompt.startswith("question "), "one line"
    assert one.said == (), "a third voice must not read what the others said"


def test_what_stands_still_is_not_read_again(
    workspace: Workspace, made: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(made, "alice", "aabb-")
    read = annotator_view._read_pairs
    times: list[str] = []
    monkeypatch.setattr(annotator_view, "_read_pairs", lambda one: (times.append(one.name), read(one))[1])
    reader = AnnotatorReader(workspace, "s", "owner")
    first = reader.read()
    assert reader.read() is first
    with Sitting(made, "bob") as bob:
        watched = reader.read()
        assert watched is not None
        assert [one.annotator for one in watched.report.people if one.shown_now] == ["bob"]
        bob.judge("tie")
        after = reader.read()
    assert after is not None
    assert [one.judged for one in after.report.people] == [4, 1]
    assert times == ["s"], "the pairs never change"


def test_who_may_settle_a_disagreement(workspace: Workspace, made: PairSet) -> None:
    ids = say(made, "alice", "abaa-")
    say(made, "bob", "bbbb-")
    say(made, "sue", "s----")
    reader = AnnotatorReader(workspace, "s", "carol")
    with ExitStack() as sittings:
        carol = sittings.enter_context(Sitting(made, "carol", adjudicates=True))
        dora = sittings.enter_context(Sitting(made, "dora", adjudicates=True))
        view = reader.read()
        assert view is not None
        first, second, third = view.disagreements
        assert [one.pair for one in view.disagreements] == [ids[0], ids[2], ids[3]]
        assert (first.state("carol"), first.obstacle("carol")) == ("before carol now", "")
        assert second.obstacle("carol") == "dora is looking at it now"
        assert (third.state("alice"), third.state("sue")) == ("you judged it", "open")
        assert "somebody else" in third.obstacle("alice")
        assert third.obstacle("sue") == "", "a skip is no verdict"
        carol.judge("left")
        dora.judge("tie")
    view = reader.read()
    assert view is not None
    assert [one.pair for one in view.disagreements] == [ids[3], ids[0], ids[2]], "the open ones first"
    assert view.open == 1
    settled = view.disagreements[1]
    assert (settled.state("x"), settled.obstacle("carol")) == ("settled by carol", "")
    assert settled.said[:2] == ("alice: a better", "bob: b better")
    assert settled.said[2].startswith("carol: ")
    assert settled.said[2].endswith(", settling it")
    assert "already" in settled.obstacle("dora")


def test_a_repeat_that_is_shown_is_no_third_voice(workspace: Workspace) -> None:
    rows = [CandidatePair(f"q{n}", f"yes {n}", f"no {n}") for n in range(2)]
    made = create_pairs(workspace, "r", rows, {}, sharing=Sharing(overlap=2, repeat_share=1.0))
    say_to = [pair.id for pair in made.pairs()]
    with made.journal("bob") as journal:
        for pair in say_to:
            journal.append(pair, "b", origin="screen")
    with Sitting(made, "alice") as alice:
        for _ in range(2):
            alice.judge("left" if alice.present and alice.present.order == "ab" else "right")
        assert alice.present is not None, "a repeat"
        view = AnnotatorReader(workspace, "r", "carol").read()
        assert view is not None
        assert [one.before for one in view.disagreements] == ["", ""]


def test_without_a_subject_it_is_what_one_would_label_and_without_a_set_there_is_nothing(
    workspace: Workspace, made: PairSet
) -> None:
    view = AnnotatorReader(workspace, "", "alice").read()
    assert view is not None
    assert (view.subject, view.disagreements, view.report.people) == ("s", (), ())
    made.parquet_path.unlink()
    with pytest.raises(WorkbenchError, match="missing"):
        AnnotatorReader(workspace, "s", "alice").read()
    for path in sorted(made.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    made.folder.rmdir()
    assert AnnotatorReader(workspace, "", "alice").read() is None
