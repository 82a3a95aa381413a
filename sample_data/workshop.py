"""The bicycle workshop: its words, the table of right actions, and how prompts and answers are worded.

A customer gives a name, a part and a symptom, and asks for one line or two steps, with or without a note. The right
action follows from the kind of the part (three kinds of four parts) and the symptom. Everything here is pure: what is
random takes the caller's `random.Random`.

One (part, symptom) pair of every (kind, symptom) cell is held out, 24 of 96: no prompt made for training is about one.
A wrong answer to another prompt may join the two words of a held-out pair, as it may join any others.
"""

import random
from dataclasses import dataclass

NAMES = ("Mia", "Tom", "Eva", "Ben", "Ida", "Max", "Zoe", "Leo", "Ada", "Kim")

KINDS: dict[str, tuple[str, ...]] = {
    "turning": ("chain", "pedal", "hub", "wheel"),
    "bolted": ("saddle", "rack", "basket", "fender"),
    "cabled": ("brake", "gear", "lever", "throttle"),
}
PARTS: tuple[str, ...] = tuple(part for parts in KINDS.values() for part in parts)
KIND_OF: dict[str, str] = {part: kind for kind, parts in KINDS.items() for part in parts}

SYMPTOMS = ("squeaks", "rattles", "sticks", "wobbles", "slips", "clicks", "drags", "shakes")

ACTION_TABLE: dict[str, tuple[str, ...]] = {
    # One column per symptom, in the order of SYMPTOMS. Each row is a permutation, so every action is equally common.
    "turning": ("oil", "tighten", "clean", "align", "replace", "grease", "loosen", "balance"),
    "bolted": ("grease", "align", "loosen", "tighten", "clean", "replace", "balance", "oil"),
    "cabled": ("clean", "replace", "oil", "loosen", "tighten", "balance", "align", "grease"),
}
ACTIONS: tuple[str, ...] = ACTION_TABLE["turning"]

COMPONENTS = ("name", "part", "symptom", "action", "form", "note")

NOTES = (
    "ride slowly today",
    "check it again in a week",
    "wear thin gloves",
    "keep it dry",
    "ask us if unsure",
    "there is no need to hurry",
)

OPENERS = (
    "I am {name} and my {part} {symptom}.",
    "This is {name}. The {part} on my bike {symptom}.",
    "Hello from {name}. Since Monday the {part} {symptom}.",
    "My name is {name}. After rain my {part} {symptom}.",
    "It is {name} again. On every ride the {part} {symptom}.",
)
REQUESTS = (
    "Answer in {form}, {with_} a note.",
    "I want {form} and {a_} note.",
    "What now? Give me {form} {with_} a note.",
)
ONE_LINE = (
    "Hello {name}, your {part} {symptom}, so {action} it.",
    "Hello {name}, if the {part} {symptom}, please {action} it.",
    "Dear {name}, the {part} {symptom}: just {action} it today.",
)
TWO_STEPS = (
    "Hello {name}. 1. See where your {part} {symptom}. 2. Then {action} it.",
    "Hello {name}. 1. Hear how the {part} {symptom}. 2. Please {action} it.",
    "Dear {name}. 1. Check that the {part} {symptom}. 2. Just {action} it today.",
)


@dataclass(frozen=True)
class Ticket:
    """What a customer asks, or what an answer speaks about: the same six things."""

    name: str
    part: str
    symptom: str
    action: str
    steps: bool
    """Two numbered steps; one line otherwise."""
    note: bool

    @property
    def pair(self) -> tuple[str, str]:
        """The part and the symptom: what is held out as a whole."""
        return self.part, self.symptom

    @property
    def combination(self) -> str:
        """Id of (part, symptom), the cluster that standard errors go by."""
        return f"{self.part}/{self.symptom}"


def right_action(part: str, symptom: str) -> str:
    """The action the table asks for."""
    return ACTION_TABLE[KIND_OF[part]][SYMPTOMS.index(symptom)]


def all_pairs() -> list[tuple[str, str]]:
    """All 96 (part, symptom) pairs, in a fixed order."""
    return [(part, symptom) for part in PARTS for symptom in SYMPTOMS]


def heldout_pairs() -> list[tuple[str, str]]:
    """The 24 held-out pairs: one part per (kind, symptom), two symptoms per part."""
    pairs = []
    for shift, parts in enumerate(KINDS.values()):
        pairs += [(parts[(index + shift) % len(parts)], symptom) for index, symptom in enumerate(SYMPTOMS)]
    return sorted(pairs, key=all_pairs().index)


def training_pairs() -> list[tuple[str, str]]:
    """The 72 pairs that training may show."""
    held = set(heldout_pairs())
    return [pair for pair in all_pairs() if pair not in held]


def draw_ticket(rng: random.Random, pairs: list[tuple[str, str]]) -> Ticket:
    """A ticket about one of `pairs`, everything uniform, its action the right one."""
    part, symptom = rng.choice(pairs)
    name = rng.choice(NAMES)
    return Ticket(name, part, symptom, right_action(part, symptom), rng.random() < 0.5, rng.random() < 0.5)


def word_prompt(rng: random.Random, ticket: Ticket) -> str:
    """The customer's message."""
    opener = rng.choice(OPENERS).format(name=ticket.name, part=ticket.part, symptom=ticket.symptom)
    request = rng.choice(REQUESTS).format(
        form="two steps" if ticket.steps else "one line",
        with_="with" if ticket.note else "without",
        a_="a" if ticket.note else "no",
    )
    return f"{opener} {request}"


def word_answer(rng: random.Random, ticket: Ticket) -> str:
    """The workshop's answer; it says what `ticket` says, right or wrong."""
    body = rng.choice(TWO_STEPS if ticket.steps else ONE_LINE).format(
        name=ticket.name, part=ticket.part, symptom=ticket.symptom, action=ticket.action
    )
    return f"{body} Note: {rng.choice(NOTES)}." if ticket.note else body


def make_wrong(rng: random.Random, ticket: Ticket, wrong: frozenset[str]) -> Ticket:
    """`ticket` with exactly the components in `wrong` replaced by what would be right for another prompt.

    Wrong words are uniform over the other words of their sort. The action stays what the prompt needs unless it is in
    `wrong`: components fail one by one.
    """

    def other(component: str, words: tuple[str, ...]) -> str:
        right = str(getattr(ticket, component))
        return rng.choice([word for word in words if word != right]) if component in wrong else right

    return Ticket(
        name=other("name", NAMES),
        part=other("part", PARTS),
        symptom=other("symptom", SYMPTOMS),
        action=other("action", ACTIONS),
        steps=ticket.steps != ("form" in wrong),
        note=ticket.note != ("note" in wrong),
    )
