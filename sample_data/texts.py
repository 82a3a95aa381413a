"""The texts the sample model is trained on: reviewed tickets and proofread tickets, in short hand and in full.

A reviewed ticket is a chat of two turns, and after the answer's `<|im_end|>` stands the reviewer's mark: ` fine`, or
the components that are wrong, in random order. So a model that predicts the mark must know at `<|im_end|>` what is
wrong with the answer, which is where a reward head reads.

In a proofread ticket another role repeats the answer and ticks each slot word at once with ` yes` or ` no`: the same
comparisons, easier to learn. Short hand is the same again in a third of the words, for the first part of training.

No prompt here is about a held-out pair. A wrong answer to another prompt may join a held-out pair's two words.
"""

import random
from dataclasses import dataclass, replace

from sample_data.workshop import (
    COMPONENTS,
    Ticket,
    draw_ticket,
    make_wrong,
    training_pairs,
    word_answer,
    word_prompt,
)

TURN_START, TURN_END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
SHORT_HAND = frozenset({"form", "note"})
"""What short hand leaves out."""


@dataclass(frozen=True)
class Text:
    """One training text in three stretches, which training weighs differently."""

    prompt: str
    answer: str
    mark: str
    """Empty in a proofread ticket, whose ticks stand in the answer."""


def chat_prompt(prompt: str, role: str = "assistant") -> str:
    """The rendered chat up to where the words of `role` begin; for the assistant, the chat template's output."""
    return f"{TURN_START}user\n{prompt}{TURN_END}\n{TURN_START}{role}\n"


def draw_wrong(rng: random.Random, rate: float) -> frozenset[str]:
    """The components that are wrong, each by itself with probability `rate`."""
    return frozenset([component for component in COMPONENTS if rng.random() < rate])


def reviewed_ticket(rng: random.Random, rate: float, *, short: bool) -> Text:
    """A prompt, an answer whose components are wrong at `rate`, and the reviewer's mark."""
    ticket, wrong = _draw(rng, rate, short)
    answer = _answer(rng, make_wrong(rng, ticket, wrong), short)
    found = [component for component in COMPONENTS if component in wrong]
    rng.shuffle(found)
    mark = f" {', '.join(found)} wrong\n" if found else " fine\n"
    return Text(chat_prompt(_prompt(rng, ticket, short)), answer, mark)


def proofread_ticket(rng: random.Random, rate: float, *, short: bool) -> Text:
    """A prompt, and an answer in which every slot word is followed by yes or no."""
    ticket, wrong = _draw(rng, rate, short)
    said = make_wrong(rng, ticket, wrong)
    tick = {component: "no" if component in wrong else "yes" for component in COMPONENTS}
    ticked = replace(
        said,
        name=f"{said.name} {tick['name']}",
        part=f"{said.part} {tick['part']}",
        symptom=f"{said.symptom} {tick['symptom']}",
        action=f"{said.action} {tick['action']}",
    )
    answer = _answer(rng, ticked, short)
    return Text(chat_prompt(_prompt(rng, ticket, short), role="proofreader"), answer, "")


def _draw(rng: random.Random, rate: float, short: bool) -> tuple[Ticket, frozenset[str]]:
    ticket = draw_ticket(rng, training_pairs())
    wrong = draw_wrong(rng, rate)
    return ticket, wrong - SHORT_HAND if short else wrong


def _prompt(rng: random.Random, ticket: Ticket, short: bool) -> str:
    return f"For {ticket.name}: {ticket.part} {ticket.symptom}" if short else word_prompt(rng, ticket)


def _answer(rng: random.Random, said: Ticket, short: bool) -> str:
    if short:
        return f"For {said.name}: {said.part} {said.symptom} {said.action}{TURN_END}"
    return word_answer(rng, said) + TURN_END
