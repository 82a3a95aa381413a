"""What a pair set asks of an annotator: its scale, its questions, its reasons and its guidelines.

Owns the form as pairs.toml declares it, and what an answer on it is. Invariant: a form is valid or is refused with what
was found and what to write. A set without one asks one three-way question. Refuses to know about keys and screens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from engine.run.safe_text import safe
from workbench.errors import NotFound, UsageError
from workbench.workspace import check_name

Scale = Literal["three-way", "five-way"]
SCALES: dict[str, Scale] = {"3": "three-way", "5": "five-way"}
STRONG = 2
"""Strength of "much better" on a five-way scale; plainly better is 1, and so is every verdict on a three-way one."""
OVERALL = "overall"
MOST_TAGS, LONGEST_TAG = 24, 40
MOST_CRITERIA = 12
LONGEST_QUESTION = 200
LONGEST_GUIDELINES = 65_536


class Criterion(NamedTuple):
    """One question about a pair."""

    name: str
    question: str = ""
    """As it is asked; empty: its name says it."""


@dataclass(frozen=True)
class LabelForm:
    """What is asked about each pair of a set."""

    scale: Scale = "three-way"
    """three-way: left, right, tie. five-way: the same, and "much better" on either side, which has the strength 2."""
    tags: tuple[str, ...] = ()
    """Reasons that are offered; an annotator may write others."""
    criteria: tuple[Criterion, ...] = ()
    """Questions that are asked one after another; none: one question, kept under the criterion "overall"."""
    guidelines: str = ""
    """What an annotator reads behind `?`."""

    def __post_init__(self) -> None:
        if self.scale not in SCALES.values():
            raise UsageError(f"scale = {self.scale!r}: must be three-way or five-way (pairs make … --scale 3 or 5).")
        _check_tags(self.tags)
        names = [one.name for one in self.criteria]
        for one in self.criteria:
            check_name(one.name, "criterion")
            if len(one.question) > LONGEST_QUESTION:
                raise UsageError(f"criterion {one.name}: its question has more than {LONGEST_QUESTION} characters.")
        if len(set(names)) != len(names):
            raise UsageError(f"criteria {', '.join(names)}: name each once.")
        if len(names) > MOST_CRITERIA:
            raise UsageError(f"{len(names)} criteria: at most {MOST_CRITERIA}, or nobody answers them all.")
        if len(self.guidelines) > LONGEST_GUIDELINES:
            raise UsageError(
                f"guidelines of {len(self.guidelines):,} characters: at most {LONGEST_GUIDELINES:,}. Link to the rest."
            )

    @property
    def questions(self) -> tuple[Criterion, ...]:
        """The questions in turn; one at least."""
        return self.criteria or (Criterion(OVERALL),)

    @property
    def asks_overall(self) -> bool:
        """Whether one question is which answer is better, which is what data and commands answer."""
        return any(one.name == OVERALL for one in self.questions)

    @property
    def most(self) -> int:
        """The greatest strength that the scale has."""
        return STRONG if self.scale == "five-way" else 1

    def to_toml(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "tags": list(self.tags),
            "criteria": [one._asdict() for one in self.criteria],
            "guidelines": self.guidelines,
        }

    @classmethod
    def from_toml(cls, content: Mapping[str, Any]) -> LabelForm:
        """The form that pairs.toml declares; keys that it lacks have their defaults."""
        criteria = [one if isinstance(one, Mapping) else {"name": one} for one in content.get("criteria", ())]
        return cls(
            content.get("scale", "three-way"),
            tuple(map(str, content.get("tags", ()))),
            tuple(Criterion(str(one.get("name", "")), str(one.get("question", ""))) for one in criteria),
            str(content.get("guidelines", "")),
        )


def form_of(
    scale: str = "3", tags: Iterable[str] = (), criteria: Iterable[str] = (), guidelines: str | None = None
) -> LabelForm:
    """The form that a command declares: "3" or "5", tags, criteria as NAME or NAME=QUESTION, a file of guidelines."""
    if scale not in SCALES:
        raise UsageError(f"--scale {scale}: must be 3 (left, right, tie) or 5 (also much better on either side).")
    asked = []
    for written in criteria:
        name, _, question = written.partition("=")
        asked.append(Criterion(name.strip(), question.strip()))
    return LabelForm(SCALES[scale], tuple(tags), tuple(asked), _read_guidelines(guidelines) if guidelines else "")


def _check_tags(tags: tuple[str, ...]) -> None:
    if len(set(tags)) != len(tags) or len(tags) > MOST_TAGS:
        raise UsageError(f"{len(tags)} tags: each once, and {MOST_TAGS} at most, or nobody finds one.")
    for tag in tags:
        if problem := tag_problem(tag):
            raise UsageError(f"tag {safe(tag[:LONGEST_TAG])!r}: {problem}")


def tag_problem(tag: str) -> str:
    """What is wrong with a tag, or the empty string."""
    if not tag.strip():
        return "a tag is a word or a few."
    if len(tag) > LONGEST_TAG:
        return f"a tag has at most {LONGEST_TAG} characters; a comment may be longer."
    if safe(tag) != tag or "," in tag:
        return "a tag has no comma, no line end and no control character."
    return ""


def _read_guidelines(file: str) -> str:
    path = Path(file)
    try:
        with open(path, "rb") as opened:
            content = opened.read(4 * LONGEST_GUIDELINES + 4)
    except OSError as error:
        raise NotFound(f"--guidelines {safe(file)}: {error.strerror}. Name a text file.") from error
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--guidelines {safe(file)}: not UTF-8 text ({error.reason} at byte {error.start})."
        ) from error
