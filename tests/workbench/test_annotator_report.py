"""What the owner sees of annotators: counts, pace, habits, drift and agreement, worked by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from workbench import judgments
from workbench.annotator_report import Person, report_of
from workbench.claims import Claims
from workbench.cli import main
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.workspace import Workspace

LIST = "- one\n- two"
START = datetime(2026, 11, 30, 9, tzinfo=UTC)


@pytest.fixture
def made(workspace: Workspace) -> PairSet:
    """12 pairs: one answer is always longer, and has a list in the first four; three calibration pairs."""
    rows = [CandidatePair(f"q{n}", LIST if n < 4 else "a long answer", "short") for n in range(12)]
    keys = [CandidatePair(f"k{n}", "right", "wrong", imported="a") for n in range(3)]
    return create_pairs(workspace, "s", rows, {"dataset": "d"}, calibration=keys)


class Clock:
    """Times of the lines that are written: so many seconds later each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.step_s = START, 10.0
        monkeypatch.setattr(judgments, "now", self.tick)

    def tick(self) -> str:
        self.now += timedelta(seconds=self.step_s)
        return self.now.isoformat(timespec="seconds")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def longer(pair: object) -> str:
    return "a" if len(str(getattr(pair, "a", ""))) > len("short") else "b"


def person(made: PairSet, who: str) -> Person:
    (found,) = [one for one in report_of(made, draws=50).people if one.annotator == who]
    return found


def test_who_how_many_and_how_fast(made: PairSet, clock: Clock) -> None:
    with made.journal("alice") as journal:
        for number, pair in enumerate(made.pairs()):
            journal.append(pair.id, "skip" if number == 3 else "a", origin="screen", order="ab")
    alice = person(made, "alice")
    assert (alice.judged, alice.skipped, alice.by_hand, alice.shown_now) == (11, 1, True, False)
    assert alice.per_hour == 360.0  # one every ten seconds
    assert alice.last_seen == "2026-11-30T09:02:00+00:00"
    here = Claims(made.folder, "alice", 0)
    assert person(made, "alice").shown_now
    here.close()


def test_habits_say_of_how_many(made: PairSet, clock: Clock) -> None:
    with made.journal("alice") as journal:
        for number, pair in enumerate(made.pairs()):
            if number == 0:
                journal.append(pair.id, "tie", origin="screen", order="ab")
            else:
                # Always the longer one; it stands left for all but the last three.
                pick = longer(pair)
                left_first = (pick == "a") == (number < 9)
                journal.append(pair.id, pick, origin="screen", order="ab" if left_first else "ba")  # type: ignore[arg-type]
    habits = person(made, "alice").habits
    assert (habits.left.of, habits.left.share) == (11, 8 / 11)
    assert (habits.longer.of, habits.longer.share) == (11, 1.0)
    assert (habits.ties.of, habits.ties.share) == (12, 1 / 12)
    assert habits.bulleted.of in (3, 4)  # whether pair 0 of the file, which is a tie, is one of the four is a draw
    assert habits.bulleted.share == 1.0
    assert habits.left.low < 8 / 11 < habits.left.high


def test_without_cases_there_is_no_share(made: PairSet) -> None:
    with made.journal("alice") as journal:
        journal.append(next(made.pairs()).id, "tie", origin="screen", order="ab")
    habits = person(made, "alice").habits
    assert (habits.left.share, habits.longer.share, person(made, "alice").calibration.share) == (None, None, None)


def test_repeats_and_calibration(made: PairSet) -> None:
    pairs, known = list(made.pairs()), list(made.calibration())
    with made.journal("alice") as journal:
        for pair in pairs[:4]:
            journal.append(pair.id, "a", origin="screen", order="ab")
        for pair, again in zip(pairs[:4], ("a", "a", "b", "skip"), strict=True):
            journal.append(pair.id, again, origin="screen", repeat=1, purpose="repeat", order="ba")  # type: ignore[arg-type]
        for number, pair in enumerate(known):
            wrong = "b" if pair.imported == "a" else "a"
            said = pair.imported if number else wrong
            journal.append(pair.id, said, origin="screen", purpose="calibration", order="ab")  # type: ignore[arg-type]
    alice = person(made, "alice")
    assert (alice.self_agreement.of, alice.self_agreement.share) == (3, 2 / 3)
    assert (alice.calibration.of, alice.calibration.share) == (3, 2 / 3)
    assert alice.judged == 4


def test_drift_compares_the_ends_of_sittings(made: PairSet, clock: Clock) -> None:
    with made.journal("alice") as journal:
        for number, pair in enumerate(made.pairs()):
            clock.step_s = 20 if number < 4 else 10 if number < 8 else 5
            journal.append(pair.id, "a", origin="screen", order="ba" if number < 4 else "ab")
    drift = person(made, "alice").drift
    assert drift is not None
    assert (drift.sittings, drift.seconds_first, drift.seconds_last) == (1, 20, 5)
    assert (drift.left_first.share, drift.left_last.share) == (0.0, 1.0)


def test_a_clock_that_was_set_back_a_day_costs_a_gap_and_nothing_else(made: PairSet, clock: Clock) -> None:
    with made.journal("alice") as journal:
        for number, pair in enumerate(made.pairs()):
            clock.step_s = -86_400 if number == 6 else 10
            journal.append(pair.id, "a", origin="screen", order="ab")
    alice = person(made, "alice")
    assert (alice.judged, alice.per_hour) == (12, 360.0)


def test_agreement_by_criterion_and_by_two_people(made: PairSet) -> None:
    pairs = [pair.id for pair in made.pairs()]
    said = {
        "alice": "aaaaaabbbbbb",
        "bob": "aaaaabbbbbba",  # differs on two
        "carol": "aaaaaabbbbb-",  # like alice, and one pair is left out
    }
    for who, verdicts in said.items():
        with made.journal(who) as journal:
            for pair, verdict in zip(pairs, verdicts, strict=True):
                if verdict != "-":
                    journal.append(pair, verdict, origin="screen", order="ab")  # type: ignore[arg-type]
    with made.journal("bob") as journal:
        journal.append(pairs[0], "b", origin="screen", criterion="honest")
        journal.append(pairs[1], "b", origin="screen", repeat=1, purpose="repeat")
    report = report_of(made, draws=50)
    overall = {one.criterion: one for one in report.criteria}["overall"]
    assert overall.disagreements == (pairs[5], pairs[11])
    # Ten units agree whole, in one a third of the pairs of people do, in one none: (10 + 1/3 + 0) / 12.
    assert (overall.nominal.units, overall.nominal.percent) == (12, pytest.approx((10 + 1 / 3) / 12))
    assert overall.nominal.alpha == pytest.approx(overall.ordinal.alpha)
    by_two = {(one.first, one.second): one for one in report.between}
    assert (by_two["alice", "carol"].pairs, by_two["alice", "carol"].kappa) == (11, 1.0)
    # p_o = 10/12; each says a and b half of the time, so p_c = 1/2 and kappa = 2/3.
    assert by_two["alice", "bob"].kappa == pytest.approx(2 / 3)


def test_the_commands(made: PairSet, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(workspace.root)]
    assert main(["pairs", "agreement", "s", *where]) == 0
    assert "nothing to compare" in capsys.readouterr().err
    pairs = [pair.id for pair in made.pairs()]
    for who, verdicts in (("alice", "aabb"), ("bob", "aaba")):
        with made.journal(who) as journal:
            for pair, verdict in zip(pairs, verdicts, strict=False):
                journal.append(pair, verdict, origin="screen", order="ab")  # type: ignore[arg-type]
    assert main(["pairs", "status", "s", *where]) == 0
    told = capsys.readouterr().out
    for words in ("alice", "50% of 4", "75% agreement", f"1 disagreement, 0 adjudicated: {pairs[3]}", "kappa"):
        assert words in told, told
    assert max(map(len, told.splitlines())) <= 100
    assert "nan" not in told
    assert main(["pairs", "status", "s", "--json", *where]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"]["judged"] == 4
    assert found["people"][0]["habits"]["left"]["share"] == 0.5
    assert found["criteria"][0]["disagreements"] == [pairs[3]]
    assert found["between"][0]["kappa"] == 0.5


def test_one_pair_gives_no_interval(made: PairSet, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    first = next(made.pairs()).id
    for who, verdict in (("alice", "a"), ("bob", "b")):
        with made.journal(who) as journal:
            journal.append(first, verdict, origin="screen", order="ab")  # type: ignore[arg-type]
    assert main(["pairs", "agreement", "s", "--workspace", str(workspace.root)]) == 0
    told = capsys.readouterr().out
    assert "too few pairs for an interval" in told
    assert "nan" not in told
