"""What is said of the people on a pair set, in a terminal and on the screen: who, their habits, how far they agree.

Owns the words. Invariant: a share stands with how many cases it is of, and what is not known is "-", never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench.agreement import Agreement
from workbench.annotator_report import AnnotatorReport, OnCriterion, PairOfPeople, Person, Share
from workbench.terminal_output import Column, counted, local_time, say, write_table

MOST_DISAGREEMENTS = 8
"""Named on a terminal; --json has all."""


def write_report(report: AnnotatorReport) -> None:
    """People, habits, agreement."""
    write_people(report.people)
    write_agreement(report)


def write_people(people: Sequence[Person]) -> None:
    """Who, how many, how fast; and the shares of their picks."""
    write_table(
        [
            Column("who"), Column("judged", right=True), Column("skipped", right=True), Column("an hour", right=True),
            Column("last seen", shrinks=True), Column("same again", right=True), Column("known right", right=True),
        ],
        [person_cells(one) for one in people],
        empty="Nobody has judged a pair yet.",
    )  # fmt: skip
    by_hand = [one for one in people if one.by_hand]
    if by_hand:
        say()
        write_table(
            [
                Column("picks of"), Column("left", right=True), Column("longer", right=True),
                Column("with a list", right=True), Column("ties", right=True),
                Column("drift over sittings", shrinks=True),
            ],
            [[one.annotator, *habit_cells(one), drift_words(one)] for one in by_hand],
            empty="",
        )  # fmt: skip


def write_agreement(report: AnnotatorReport) -> None:
    """Everyone on each criterion, each two people, and what they disagree on."""
    for one in report.criteria:
        if one.nominal.units:
            say()
            for line in criterion_lines(one):
                say(line)
    if report.between:
        say()
        write_table(
            [
                Column("two people"), Column("on", shrinks=True), Column("pairs", right=True),
                Column("agree", right=True), Column("kappa", right=True),
            ],
            [between_cells(one) for one in report.between],
            empty="",
        )  # fmt: skip
    open_ones = [pair for one in report.criteria for pair in one.disagreements]
    if open_ones:
        named = ", ".join(open_ones[:MOST_DISAGREEMENTS]) + (" …" if len(open_ones) > MOST_DISAGREEMENTS else "")
        say()
        say(f"{counted(len(open_ones), 'disagreement')}, {report.adjudicated:,} adjudicated: {named}")


def person_cells(one: Person) -> list[str]:
    """Who, judged, skipped, an hour, last seen, same again, known right."""
    return [
        one.annotator + ("" if one.by_hand else " (not by hand)"),
        f"{one.judged:,}",
        f"{one.skipped:,}",
        f"{one.per_hour:,.0f}" if one.per_hour else "-",
        _seen(one),
        _share(one.self_agreement),
        _share(one.calibration),
    ]


def habit_cells(one: Person) -> list[str]:
    """Shares of left, of longer, of answers with a list, of ties."""
    habits = one.habits
    return [_share(each) for each in (habits.left, habits.longer, habits.bulleted, habits.ties)]


def criterion_lines(one: OnCriterion) -> tuple[str, str]:
    """How far everyone agrees on a criterion."""
    several = counted(one.nominal.units, "pair")
    return (
        f"{one.criterion}: {several} with several verdicts, {one.nominal.percent:.0%} agreement",
        f"  Krippendorff's alpha, 95 %: nominal {_alpha(one.nominal)}, ordinal {_alpha(one.ordinal)}",
    )


def _alpha(found: Agreement) -> str:
    if math.isnan(found.alpha):
        return "undefined"
    if math.isnan(found.alpha_low):
        return f"{found.alpha:.2f} (too few pairs for an interval)"
    return f"{found.alpha:.2f} ({found.alpha_low:.2f} to {found.alpha_high:.2f})"


def between_cells(one: PairOfPeople) -> list[str]:
    """Two people, on what, pairs, how many of them alike, kappa."""
    kappa = "undefined" if math.isnan(one.kappa) else f"{one.kappa:.2f}"
    return [f"{one.first}, {one.second}", one.criterion, f"{one.pairs:,}", f"{one.percent:.0%}", kappa]


def _seen(one: Person) -> str:
    return "here now" if one.shown_now else local_time(one.last_seen) if one.last_seen else "-"


def _share(share: Share) -> str:
    return "-" if share.share is None else f"{share.share:.0%} of {share.of:,}"


def drift_words(one: Person) -> str:
    """How the last third of their sittings differs from the first."""
    drift = one.drift
    if drift is None:
        return "-"
    pace = f"{drift.seconds_first:.0f} s to {drift.seconds_last:.0f} s a pair"
    first, last = drift.left_first.share, drift.left_last.share
    return pace if first is None or last is None else f"{pace}, left {first:.0%} to {last:.0%}"
