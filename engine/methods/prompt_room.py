"""Whether the prompts of a run on rollouts leave room for completions in the model's window.

Owns that question, which is asked once, before the first step: a prompt that is too long would else end the run at
whichever step takes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.examples import PromptExample
from engine.data.token_facts import tokens_of
from engine.errors import ConfigError
from engine.model.adapters import RoleModel
from engine.run.config import RunConfig


def check_room(
    config: RunConfig, roles: RoleModel, examples: tuple[Sequence[PromptExample], Sequence[PromptExample]]
) -> None:
    """Raises ConfigError where a prompt and max_new_tokens of its method are more than the model's window."""
    window = getattr(roles.model.config.get_text_config(), "max_position_embeddings", None)
    if window is None:
        return
    method = config.run.method
    new = getattr(config, method).max_new_tokens
    for side, prompts in zip(("train", "eval"), examples, strict=True):
        lengths = tokens_of(prompts) if len(prompts) else []
        over = sum(1 for length in lengths if length + new > window)
        if over:
            raise ConfigError(
                f"[{method}] max_new_tokens = {new}: {over} of {len(lengths)} prompts ({side}) leave less room in the "
                f"model's window of {window} tokens; the longest has {max(lengths)}. Lower {method}.max_new_tokens"
                + (f", or set data.max_length = {window - new + 1} to leave such prompts out" if new < window else "")
            )
