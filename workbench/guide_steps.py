"""The guide through the loop on the sample data: which step a person is at, and what to do there.

Owns the order of the steps and their words. Which step it is is read off the workspace, so a person may wander, leave
and come back: a step is behind them when what it makes is there. Only looking leaves no trace; it counts once the
screen was shown, or once a verdict was given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from workbench.judgments import read_judgments
from workbench.labeling_subject import subject_of
from workbench.pair_sets import PairKind, open_pairs
from workbench.preferences import open_preference_set
from workbench.rule_annotator import ANNOTATOR as RULE
from workbench.run_list import ALIVE, Run, all_runs
from workbench.terminal_output import counted
from workbench.workspace import Workspace

PAIRS, PREFERENCES, ARENA = "answers", "preferences", "dpo-sft"
BY_HAND, BLIND = 10, 5
"""Verdicts a person gives: on pairs, and in the arena."""


@dataclass(frozen=True)
class GuideStep:
    """One step: what it is for, and the keys that do it."""

    number: int
    total: int
    title: str
    why: str
    """A sentence or two."""
    station: str
    subject: str
    here: str
    """What to press at the station."""
    done: bool = False
    """The last word: everything was done."""


@dataclass(frozen=True)
class Progress:
    """What is there already."""

    seen: frozenset[str]
    by_hand: int
    by_rule: int
    frozen: bool
    sft: Run | None
    sft_state: str
    dpo: Run | None
    dpo_state: str
    arena: str
    blind: int
    wanted_blind: int
    """Verdicts that are asked for in the arena: BLIND, or all its pairs where it has fewer."""

    @property
    def labeled(self) -> bool:
        return self.by_hand >= BY_HAND


def find_step(workspace: Workspace, seen: Collection[str]) -> GuideStep:
    """The first step that is not behind the person; `seen` are the stations that were shown."""
    found = look(workspace, seen)
    for number, (behind, make) in enumerate(STEPS, start=1):
        if not behind(found):
            title, why, station, subject, here = make(found)
            return GuideStep(number, len(STEPS), title, why, station, subject, here)
    title, why, station, subject, here = _end(found)
    return GuideStep(len(STEPS), len(STEPS), title, why, station, subject, here, done=True)


def look(workspace: Workspace, seen: Collection[str]) -> Progress:
    """What the person and the runs have made so far."""
    by_hand, by_rule = _verdicts(workspace, "pairs", PAIRS)
    runs = {run.method: run for run in all_runs(workspace)}
    sft, dpo = runs.get("sft"), runs.get("dpo")
    arena = next(iter(workspace.names("arena")), "")
    return Progress(
        seen=frozenset(seen),
        by_hand=by_hand,
        by_rule=by_rule,
        frozen=any(_holds(workspace, name) for name in workspace.names("prefs")),
        sft=sft,
        sft_state=sft.state().state if sft else "",
        dpo=dpo,
        dpo_state=dpo.state().state if dpo else "",
        arena=arena,
        blind=sum(_verdicts(workspace, "arena", arena)) if arena else 0,
        wanted_blind=min(BLIND, open_pairs(workspace, arena, "arena").info.rows) if arena else BLIND,
    )


def _verdicts(workspace: Workspace, kind: PairKind, name: str) -> tuple[int, int]:
    """(verdicts of people, verdicts of the rule) that stand; a skip is a verdict of a person here."""
    said = read_judgments(workspace.folder(kind) / name / "judgments")
    by_rule = sum(one.annotator == RULE for one in said.first)
    return len(said.first) - by_rule, by_rule


def _holds(workspace: Workspace, name: str) -> bool:
    return bool(open_preference_set(workspace, name).info.counts.get("train"))


Words = tuple[str, str, str, str, str]


def _look_words(found: Progress) -> Words:
    return (
        "look at the data",
        "5,000 questions to a bicycle workshop (synthetic), each with two answers. In the background a small model is "
        "being tuned on demonstrations (SFT).",
        "inspect",
        "answers",
        "j k move, Enter opens a row, q closes it. Then ctrl+n goes on.",
    )


def _label_words(found: Progress) -> Words:
    left = BY_HAND - found.by_hand
    return (
        f"label {counted(left, 'pair')} by hand",
        "Which answer is better? A good one greets the right person, names the right part and trouble, and has the "
        "form that was asked for: one line, or steps.",
        "label",
        PAIRS,
        "1 left is better, 2 right, 3 tie, 0 both bad; u takes the last one back.",
    )


def _rule_words(found: Progress) -> Words:
    return (
        "let the sample rule judge the rest",
        "Ten verdicts are too few to learn from. The sample domain has a rule that knows the right answers; its "
        "verdicts are marked synthetic.",
        "pairs",
        PAIRS,
        "press R, then R again to agree.",
    )


def _freeze_words(found: Progress) -> Words:
    return (
        "freeze the verdicts",
        "A run trains on a preference set that never changes, split by prompt: a part to train on, a part held out.",
        "pairs",
        PAIRS,
        f"press f and accept the name {PREFERENCES}.",
    )


def _train_words(found: Progress) -> Words:
    why = "DPO makes the preferred answers likelier than the others. It starts from the tuned model (SFT)"
    here = "everything is filled in; press w to start."
    if found.sft is not None and found.sft_state in ALIVE:
        status = found.sft.status()
        how_far = f" at step {status.step} of {status.total_steps}" if status and status.total_steps else ""
        why += f", which is still being trained{how_far}."
        here = f"wait until that is done, then press w. (: then {found.sft.id[:12]}… shows it.)"
    else:
        why += ", which is ready."
    return "train on the preferences (DPO)", why, "launch", "guide", here


def _watch_words(found: Progress) -> Words:
    if found.dpo_state not in (*ALIVE, "done"):
        why = f"{found.dpo.id if found.dpo else 'The run'} ended before it was done ({found.dpo_state})."
        return (
            "start it again", f"{why} Nothing is lost; its reason stands on the screen of runs.", "launch", "guide",
            "everything is filled in; press w to start.",
        )  # fmt: skip
    return (
        "watch it learn",
        "Accuracy on held-out pairs and margin rise, the loss falls below ln 2, the KL says how far the model has "
        "moved. Leaving stops nothing.",
        "curves",
        found.dpo.id if found.dpo else "",
        "watch until it says done (about a minute); then ctrl+n goes on.",
    )


def _compare_words(found: Progress) -> Words:
    return (
        "compare it with what you had",
        "Both models answer the same questions, side by side; then you judge them blindly.",
        "compare",
        found.dpo.id if found.dpo else "",
        "press w to ask both; n shows the next answers; b, Enter: a blind arena.",
    )


def _judge_words(found: Progress) -> Words:
    return (
        f"judge {counted(found.wanted_blind - found.blind, 'pair')} blindly",
        "Which model wrote which answer is hidden now, and the side it stands on is drawn for each pair.",
        "label",
        subject_of("arena", found.arena),
        "1 left, 2 right, 3 tie, 0 both bad. Then ctrl+n goes to the win rate.",
    )


def _end(found: Progress) -> Words:
    return (
        "once round the loop",
        "The win rate says whether training helped; more verdicts make its interval narrower (r, then R: the rule "
        "gives them). Next: the same with your own data.",
        "compare",
        subject_of("arena", found.arena),
        "For your own data: workbench init FOLDER, then workbench in it. q leaves.",
    )


STEPS: tuple[tuple[Callable[[Progress], bool], Callable[[Progress], Words]], ...] = (
    (lambda found: "inspect" in found.seen or found.by_hand > 0, _look_words),
    (lambda found: found.labeled, _label_words),
    (lambda found: found.by_rule > 0, _rule_words),
    (lambda found: found.frozen, _freeze_words),
    (lambda found: found.dpo is not None, _train_words),
    (lambda found: found.dpo_state == "done", _watch_words),
    (lambda found: bool(found.arena), _compare_words),
    (lambda found: found.blind >= found.wanted_blind, _judge_words),
)
