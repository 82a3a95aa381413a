"""What there is to label: a pair set by NAME, an arena by arena/NAME, and how a prompt is read.

Owns how a subject is written, and which set wants labeling where none was named. Refuses to know what was said of one.
"""

from __future__ import annotations

from workbench.canonical_rows import Prompt, said_in
from workbench.judgments import read_judgments
from workbench.pair_sets import PairKind, PairSet, list_pairs, open_pairs
from workbench.workspace import Workspace

ARENA = "arena/"
"""What the subject of an arena begins with."""
ADJUDICATE = "adjudicate:"
"""What the subject begins with where disagreements of others are to be settled."""
_FIRST = "#"
"""Before the id of the pair that is shown first; no name of a set has it."""


def subject_of(kind: PairKind, name: str) -> str:
    """How the pair set or the arena of this name is written."""
    return (ARENA if kind == "arena" else "") + name


def adjudication_of(subject: str, pair: str = "") -> str:
    """The subject under which the disagreements of a set are settled, that on `pair` first."""
    return f"{ADJUDICATE}{subject}{_FIRST}{pair}" if pair else ADJUDICATE + subject


def first_pair_of(subject: str) -> str:
    """The pair that a subject wants to be shown first; empty for none."""
    return subject.partition(_FIRST)[2]


def pair_set_of(workspace: Workspace, subject: str) -> PairSet:
    """The pair set "NAME" or the arena "arena/NAME"; of a subject to adjudicate, too."""
    subject = subject.removeprefix(ADJUDICATE).partition(_FIRST)[0]
    return open_pairs(workspace, subject.removeprefix(ARENA), "arena" if subject.startswith(ARENA) else "pairs")


def open_subject(workspace: Workspace, annotator: str) -> str:
    """The newest set in which this annotator has pairs open, pair sets before arenas; else the newest of all."""
    kinds: tuple[PairKind, ...] = ("pairs", "arena")
    newest = ""
    for kind in kinds:
        for one in sorted(list_pairs(workspace, kind)[0], key=lambda one: one.info.created, reverse=True):
            subject = subject_of(kind, one.name)
            newest = newest or subject
            said = read_judgments(one.judgments_folder)
            judged = sum(judgment.annotator == annotator for judgment in said.first)
            if judged < one.info.rows * len(one.form.questions):
                return subject
    return newest


def prompt_text(prompt: Prompt) -> str:
    """A prompt as it is read: one user turn is its words; in a conversation each turn says whose it is."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return "\n\n".join(f"{turn['role']}: {said_in(turn)}" for turn in prompt)
