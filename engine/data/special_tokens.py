"""The tokens of a tokenizer that begin, end and fill: found once, from the model's files and its chat template.

Owns how each is found. Invariant: every id is one that the tokenizer has; no mask is ever derived from any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine.data.chat_messages import Message
from engine.data.tokenizer_files import TokenizerFiles
from engine.errors import DataError, ModelError


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens in force."""

    eos_id: int
    """Ends a text."""
    end_of_turn_id: int
    """Ends an assistant turn in the template; the end-of-text token where the template writes none."""
    bos_id: int | None
    pad_id: int
    """Fills unused slots while sampling; the end-of-text token where the model names none."""
    stop_ids: frozenset[int]
    """Sampling ends at any of these."""
    turn_has_end: bool
    """Whether the template ends an assistant turn with a special token."""
    pad_is_named: bool
    """Whether the model's files name a padding token."""

    @classmethod
    def found(
        cls, tokenizer: Tokenizer, files: TokenizerFiles, render: Callable[[Sequence[Message]], str] | None
    ) -> SpecialTokens:
        """`render` writes a conversation as the template does; None without a template. Raises ModelError."""
        turn_end = None if render is None else _end_of_turn(tokenizer, render)
        eos_id = _first(_id_of("eos_token", tokenizer, files), turn_end)
        if eos_id is None:
            raise ModelError(
                f"{files.folder}: no end-of-text token: name it as eos_token in tokenizer_config.json, or as "
                "eos_token_id in generation_config.json"
            )
        end_of_turn_id = eos_id if turn_end is None else turn_end
        pad_id = _id_of("pad_token", tokenizer, files)
        return cls(
            eos_id,
            end_of_turn_id,
            _id_of("bos_token", tokenizer, files),
            eos_id if pad_id is None else pad_id,
            frozenset({eos_id, end_of_turn_id, *files.stop_ids}),
            turn_end is not None,
            pad_id is not None,
        )


def _first(*ids: int | None) -> int | None:
    return next((one for one in ids if one is not None), None)


def _id_of(name: str, tokenizer: Tokenizer, files: TokenizerFiles) -> int | None:
    text = files.special_texts.get(name)
    if text is None:
        return files.special_ids.get(name)
    token_id: int | None = tokenizer.token_to_id(text)
    if token_id is None and name == "eos_token":
        raise ModelError(
            f"{files.folder}/tokenizer_config.json: {name} is {text!r}, which tokenizer.json does not have: "
            "correct the name, or copy both files from the model again"
        )
    return token_id


def _end_of_turn(tokenizer: Tokenizer, render: Callable[[Sequence[Message]], str]) -> int | None:
    """The first special token that the template writes behind an assistant's words."""
    words = "wordsofanassistant"
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": words}]
    try:
        _, found, suffix = render(talk).rpartition(words)
    except DataError:
        return None
    if not found:
        return None
    special = tokenizer.get_added_tokens_decoder()
    return next((i for i in tokenizer.encode(suffix, add_special_tokens=False).ids if i in special), None)
