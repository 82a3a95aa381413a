"""The proof on film reviews: what its rows are made of, and what its drawing and its changes say of known numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.chat import ChatTokenizer
from tests.benchmarks import sentiment

MODEL = Path(__file__).resolve().parents[1] / "sample_data" / "model"


def review(number: int, word: str) -> str:
    """A review of 70 words that ends in 28 of `word`."""
    return " ".join([f"<br />n{number}", *(f"w{number}x{i}" for i in range(41)), *[word] * sentiment.ENDING_WORDS])


def test_each_review_serves_once_and_each_beginning_is_read_as_so_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentiment, "PAIRS", 5)
    monkeypatch.setattr(sentiment, "PROMPTS", 7)
    tokenizer = ChatTokenizer.from_folder(MODEL)
    labelled = [(review(i, f"{'good' if i % 2 else 'bad'}{i}"), str(i % 2)) for i in range(40)]
    # The beginning of another review, which is not asked twice.
    labelled += [(review(0, "bad"), "0")] * 3
    pairs, prompts = sentiment.rows_of(tokenizer, labelled)
    beginnings = [row["prompt"] for row in (*pairs, *prompts)]
    assert (len(pairs), len(prompts), len(set(beginnings))) == (5, 7, 12)
    assert {len(tokenizer.prompt_ids(beginning)) for beginning in beginnings} == {sentiment.BEGINNING_TOKENS}
    assert not any("<br" in beginning for beginning in beginnings)
    for pair in pairs:
        assert set(pair["chosen"].split()) < {f"good{i}" for i in range(40)}
        assert set(pair["rejected"].split()) < {"bad", *(f"bad{i}" for i in range(40))}
        assert len(tokenizer.completion_ids(pair["prompt"], pair["chosen"])) > sentiment.ANSWER_TOKENS
    endings = [pair[side] for pair in pairs for side in ("chosen", "rejected")]
    assert len(set(endings)) == 10


def figures(proxy: float, gold: float) -> dict[str, float]:
    return {
        "eval_rewards/p/mean": proxy, "eval_rewards/p/mean_standard_error": 0.3,
        "eval_rewards/compound/mean": gold, "eval_rewards/compound/mean_standard_error": 0.04,
    }  # fmt: skip


def test_a_change_has_the_error_of_two_independent_ends() -> None:
    first, last = figures(-1.0, 0.1), {**figures(3.0, 0.0), "objective/kl": 2.0}
    lines = sentiment.held_out_lines({0: first, 10: figures(1.0, 0.2), 20: last}, "p")
    # sqrt(2) * 0.3 = 0.424, and 4 by it is 9.4.
    assert lines[-2] == "proxy: +4.000 ± 0.424 (9.4 s.e.)"
    assert lines[-1] == "gold: -0.100 ± 0.057 (-1.8 s.e.)"
    assert lines[3].endswith(" 2.00")


def test_both_curves_are_in_deviations_of_their_first_rounds() -> None:
    rounds = {
        step: {"rewards/p/mean": float(step), "rewards/p/std": 2.0, "rewards/compound/mean": 0.5,
               "rewards/compound/std": 0.1}
        for step in range(1, 9)
    }  # fmt: skip
    assert sentiment.in_deviations(rounds, "p") == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert sentiment.in_deviations(rounds, "compound") == [0.0] * 5
    lines = sentiment.draw({"proxy": [0.0, 0.5, 1.0, 1.5, 2.0], "gold": [0.0] * 5}, 8)
    field = [line.partition("│")[2] for line in lines[1:-2]]
    assert field[0] == " " * (sentiment.WIDTH - 1) + "p"
    assert field[-1][0] == "*"
    assert field[-1].count("g") == 4
    assert lines[-1].split() == ["1", "to", "4", "5", "to", "8"]
