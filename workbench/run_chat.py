"""How the conversations of a run become text, settled at launch: its template, its special tokens, its tokenizer.

Owns what of [chat] a launch looks up and writes into the run's folder. Invariant: the run's folder holds the very
template that is used, so that no later change to the model's folder or to the named file reaches a run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.run.config_chat import UNKNOWN, ChatConfig
from engine.run.folder import RunFolder
from workbench.model_names import ResolvedModel

if TYPE_CHECKING:
    from engine.data.chat import ChatTokenizer

NOT_YET = {"template_sha256": "", "eos_id": UNKNOWN, "end_of_turn_id": UNKNOWN, "pad_id": UNKNOWN}
"""What a plan says of the keys that are found when the run is made."""


def check_chat(chat: ChatConfig, model: ResolvedModel) -> None:
    """Raises EngineError where what a person chose cannot be; the model's own template is looked at later."""
    if chat.template or chat.arguments or chat.eos or chat.pad:
        tokenizer_of(chat, model)


def tokenizer_of(chat: ChatConfig, model: ResolvedModel) -> ChatTokenizer:
    """The tokenizer that a run on this model will have. Raises EngineError."""
    # The tokenizer library and Jinja, which a screen that opens has no time for.
    from engine.run_tokenizer import chat_tokenizer, template_of

    return chat_tokenizer(chat, model.path, model.adapter, template_of(chat, model.path, model.adapter))


def freeze_chat(chat: ChatConfig, model: ResolvedModel, folder: RunFolder) -> ChatConfig:
    """Write the template into a new run's folder; returns [chat] with all that was found. Raises EngineError."""
    from engine.run_tokenizer import chat_tokenizer, frozen, template_of

    template = template_of(chat, model.path, model.adapter)
    tokenizer = chat_tokenizer(chat, model.path, model.adapter, template)
    if template is not None:
        folder.chat_template_path.write_bytes(template.encode("utf-8"))
        folder.chat_template_path.chmod(0o600)
    named = str(Path(chat.template).expanduser().absolute()) if chat.template else ""
    return frozen(replace(chat, template=named), template, tokenizer)
