"""The gold rule: perfect answers score 1, each fault costs its own component, garbage costs all it can."""

import random

import pytest

from sample_data.gold_rule import score
from sample_data.texts import draw_wrong
from sample_data.workshop import COMPONENTS, all_pairs, draw_ticket, make_wrong, word_answer, word_prompt

PROMPT = "I am Mia and my brake squeaks. Answer in one line, with a note."
GOOD = "Hello Mia, your brake squeaks, so clean it. Note: keep it dry."


def wrong_components(answer: str, prompt: str = PROMPT, *, stopped: bool = True) -> set[str]:
    """Names of the components that score 0."""
    components = score(prompt, answer, stopped=stopped).components
    assert tuple(components) == COMPONENTS
    return {name for name, value in components.items() if value == 0.0}


def test_a_good_answer_scores_one() -> None:
    assert score(PROMPT, GOOD).total == 1.0


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (GOOD.replace("Mia", "Tom"), {"name"}),
        (GOOD.replace("brake", "chain"), {"part"}),
        (GOOD.replace("squeaks", "slips"), {"symptom"}),
        (GOOD.replace("clean", "oil"), {"action"}),
        ("Hello Mia. 1. See where your brake squeaks. 2. Then clean it. Note: keep it dry.", {"form"}),
        ("Hello Mia, your brake squeaks, so clean it.", {"note"}),
        (GOOD + " Note: wear thin gloves.", {"note"}),
        (GOOD.replace("brake", "brake and chain"), {"part"}),
        (GOOD.replace("clean", "clean and oil"), {"action"}),
        (GOOD[:-1], {"note"}),
        ("Hello Mia, your brake squeaks, so clean it Note: keep it dry.", {"form"}),
    ],
)
def test_each_fault_costs_its_own_component(answer: str, wrong: set[str]) -> None:
    assert wrong_components(answer) == wrong


def test_a_cut_off_answer_fails_the_form() -> None:
    assert wrong_components(GOOD, stopped=False) == {"form"}


def test_the_same_answer_is_right_for_one_prompt_and_wrong_for_another() -> None:
    other = "I am Mia and my chain squeaks. Answer in two steps, without a note."
    assert wrong_components(GOOD, other) == {"part", "action", "form", "note"}


def test_worded_answers_fail_exactly_where_they_were_made_wrong() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        ticket, wrong = draw_ticket(rng, all_pairs()), draw_wrong(rng, 0.3)
        answer = word_answer(rng, make_wrong(rng, ticket, wrong))
        assert wrong_components(answer, word_prompt(rng, ticket)) == wrong


GARBAGE = ["", " ", "\n\n", "\x00\x1b[31m", "Note:", "Note: Note:", "1. 2.", "é" * 5000, "\ud83d", "<|im_end|>"]


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_any_text_gets_a_score(text: str) -> None:
    assert wrong_components(text) >= {"name", "part", "symptom", "action", "form", "note"}
    assert 0.0 <= score(text, GOOD).total <= 1.0
    assert 0.0 <= score(text, text).total <= 1.0


def test_long_hostile_answers_take_linear_time() -> None:
    prompt = PROMPT.replace("one line", "two steps")
    for unit in ("A. 1. ", "A 1. a. 2. ", "Note: ", "a "):
        assert score(prompt, "A" + unit * 50_000).total < 1.0
