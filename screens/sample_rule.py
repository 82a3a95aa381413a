"""The sample rule as an annotator, for the stations that may let it judge: a question, and then a task that Esc ends.

Owns the words of both. Invariants: it is asked for only where it knows the domain; its verdicts are called synthetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from screens.modals import Choice, Question
from screens.tasks import Task
from workbench.labeling_subject import pair_set_of
from workbench.terminal_output import counted

if TYPE_CHECKING:
    from screens.station import Station
    from workbench.rule_annotator import RuleReport


def let_rule_judge(station: Station, subject: str, then: Callable[[], None]) -> None:
    """Ask whether the rule shall judge a pair set or an arena, let it, say what it did, and call `then`."""

    def known(task: Task) -> bool:
        from workbench.pair_words import of_sample_domain

        return of_sample_domain(pair_set_of(station.workspace, subject))

    def ask(yes: bool) -> None:
        if yes:
            question = Question(
                f"Let the sample rule judge {subject}?",
                [Choice("R", "let it judge every pair that it has not judged")],
                details='Its verdicts are synthetic: a fixed rule gives them under the name "rule", and wherever they '
                "are counted they are called so. Nobody's own verdicts change.",
            )
            station.app.push_screen(question, lambda answer: _judge(station, subject, then) if answer else None)
        else:
            station.say(f"the sample rule knows only the sample data; {subject} is for people: enter labels it", "bad")

    station.start_task("looking where the pairs come from", known, ask)


def _judge(station: Station, subject: str, then: Callable[[], None]) -> None:
    def work(task: Task) -> RuleReport:
        from workbench.rule_annotator import judge_by_rule

        return judge_by_rule(pair_set_of(station.workspace, subject), progress=task.report)

    def judged(report: RuleReport) -> None:
        verdicts = counted(report.judged, "verdict")
        station.say(f"{verdicts} of the sample rule (synthetic) on {subject}", "good")
        then()

    station.start_task(f"the rule judges {subject}", work, judged)
