"""The gold rule: how well an answer does what its prompt asked, as six yes/no components and their mean.

The rule reads plain text, any text: what it cannot find counts as not said. It is kept away from training: the engine
cannot import it, and only the demo, `make_data` and tests call it.
"""

import re
from dataclasses import dataclass

from sample_data.workshop import ACTIONS, COMPONENTS, NAMES, PARTS, SYMPTOMS, right_action

_WORD = re.compile(r"[A-Za-z]+")
_ONE_LINE = re.compile(r"[A-Z][^.\n]*[^.\s]\.")
_TWO_STEPS = re.compile(r"[A-Z][^.\n]*\. 1\. [^.\n]*[^.\s]\. 2\. [^.\n]*[^.\s]\.")
_NOTE = re.compile(r" [^.:\n]*[^.:\s]\.")


@dataclass(frozen=True)
class GoldScore:
    """The rule's verdict on one answer."""

    components: dict[str, float]
    """0.0 or 1.0 for each of `workshop.COMPONENTS`, in that order."""

    @property
    def total(self) -> float:
        """Mean of the components, 0 to 1."""
        return sum(self.components.values()) / len(self.components)


def score(prompt: str, answer: str, *, stopped: bool = True) -> GoldScore:
    """Score `answer` (without special tokens) to `prompt` (the customer's words).

    `stopped` is False for an answer that was cut off instead of ending by itself; such an answer fails `form`.
    """
    asked, said = _words(prompt), _words(answer)
    body, mark, tail = answer.partition("Note:")
    values = {
        "name": _only(said & set(NAMES), asked & set(NAMES)),
        "part": _only(said & set(PARTS), asked & set(PARTS)),
        "symptom": _only(said & set(SYMPTOMS), asked & set(SYMPTOMS)),
        "action": said & set(ACTIONS) == _needed_actions(asked),
        "form": stopped and _has_form(body.rstrip(" ") if mark else body, steps="two steps" in prompt),
        "note": _has_note(mark, tail, answer) if _asks_note(prompt) else "note" not in answer.lower(),
    }
    return GoldScore({name: float(values[name]) for name in COMPONENTS})


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text))


def _only(said: set[str], asked: set[str]) -> bool:
    """Exactly one word of its sort was asked for, and the answer says this one and no other."""
    return len(asked) == 1 and said == asked


def _needed_actions(asked: set[str]) -> set[str] | None:
    parts, symptoms = asked & set(PARTS), asked & set(SYMPTOMS)
    if len(parts) != 1 or len(symptoms) != 1:
        return None
    return {right_action(parts.pop(), symptoms.pop())}


def _has_form(body: str, *, steps: bool) -> bool:
    return (_TWO_STEPS if steps else _ONE_LINE).fullmatch(body) is not None


def _asks_note(prompt: str) -> bool:
    return "without a note" not in prompt and "no note" not in prompt


def _has_note(mark: str, tail: str, answer: str) -> bool:
    return bool(mark) and _NOTE.fullmatch(tail) is not None and answer.lower().count("note") == 1
