"""Prompts that leave no room for completions are refused before the first step, with what to set."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.data.examples import PromptExample
from engine.errors import ConfigError
from engine.methods.prompt_room import check_room
from engine.run.config import RunConfig
from engine.run.config_layers import resolve

PROMPTS = [PromptExample(str(n), tuple(range(n)), "") for n in (3, 90, 100)]


def config_of(new: int) -> RunConfig:
    return resolve("grpo", [("test", {"grpo": {"max_new_tokens": new}})]).config


def roles_with(window: int | None) -> Any:
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=window))
    return SimpleNamespace(model=SimpleNamespace(config=config))


def test_what_fits_is_not_refused() -> None:
    check_room(config_of(28), roles_with(128), (PROMPTS, []))
    check_room(config_of(10_000), roles_with(None), (PROMPTS, PROMPTS))


@pytest.mark.parametrize(("sides", "side"), [((PROMPTS, []), "train"), ((PROMPTS[:1], PROMPTS), "eval")])
def test_the_refusal_says_how_many_and_what_to_set(sides: Any, side: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_room(config_of(40), roles_with(128), sides)
    assert str(refused.value) == (
        f"[grpo] max_new_tokens = 40: 2 of 3 prompts ({side}) leave less room in the model's window of 128 tokens; the "
        "longest has 100. Lower grpo.max_new_tokens, or set data.max_length = 89 to leave such prompts out"
    )
    # A prompt of data.max_length tokens or more is dropped: what is left has 88 at most, and 88 + 40 fit.
    check_room(config_of(40), roles_with(128), ([PromptExample("88", tuple(range(88)), "")], []))


def test_a_window_smaller_than_the_completions_cannot_be_met_by_shorter_prompts() -> None:
    with pytest.raises(ConfigError, match=r"Lower grpo\.max_new_tokens$"):
        check_room(config_of(200), roles_with(128), (PROMPTS, []))
