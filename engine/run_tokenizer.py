"""The tokenizer of a run: the model's, with the template, the arguments and the special tokens of [chat].

Owns what is used where. Invariant: a run that was launched with its template frozen uses that one for ever, whatever
the model's folder says now; a tokenizer that would give other special ids than at launch is refused. Torch-free.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from engine.data.chat import ChatTokenizer
from engine.data.template_arguments import parse_arguments, with_arguments
from engine.data.tokenizer_files import TokenizerFiles
from engine.errors import ConfigError, ModelError
from engine.run.config import RunConfig
from engine.run.config_chat import UNKNOWN, ChatConfig
from engine.run.folder import RunFolder


def chat_tokenizer(chat: ChatConfig, folder: Path, adapter: Path | None, template: str | None) -> ChatTokenizer:
    """The tokenizer of a model under [chat]; `template` is the one to use, None for a model without.

    Raises ModelError and ConfigError.
    """
    if template is not None:
        template = with_arguments(template, parse_arguments(chat.arguments))
    elif chat.arguments:
        raise ConfigError(f"[chat] arguments = {chat.arguments!r}: {folder} has no chat template to give them to")
    tokens = {"eos_token": chat.eos, "pad_token": chat.pad}
    files = TokenizerFiles.of_model(folder, adapter)
    return ChatTokenizer.of_files(files, template, {name: text for name, text in tokens.items() if text})


def template_of(chat: ChatConfig, folder: Path, adapter: Path | None) -> str | None:
    """The template that a launch freezes: the file that [chat] names, else the model's own. Raises EngineError."""
    if not chat.template:
        return TokenizerFiles.of_model(folder, adapter).chat_template
    try:
        return Path(chat.template).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'[chat] template = "{chat.template}": cannot be read ({error}): name a .jinja file, or leave it empty to '
            "use the model's own template"
        ) from error


def frozen(chat: ChatConfig, template: str | None, tokenizer: ChatTokenizer) -> ChatConfig:
    """[chat] with what it comes to for this model."""
    return replace(
        chat,
        template_sha256="" if template is None else hashlib.sha256(template.encode()).hexdigest(),
        eos_id=tokenizer.eos_id,
        end_of_turn_id=tokenizer.end_of_turn_id,
        pad_id=tokenizer.pad_id,
    )


def run_tokenizer(config: RunConfig, folder: RunFolder) -> ChatTokenizer:
    """The tokenizer that a run trains with. Raises EngineError where it is not what it was at launch."""
    chat = config.chat
    base = folder.in_workspace(config.model.path)
    adapter = folder.in_workspace(config.model.adapter) if config.model.adapter else None
    launched = chat.eos_id != UNKNOWN
    template = _frozen_template(chat, folder) if launched else template_of(chat, base, adapter)
    tokenizer = chat_tokenizer(chat, base, adapter, template)
    for name in ("eos_id", "end_of_turn_id", "pad_id") if launched else ():
        if getattr(tokenizer, name) != getattr(chat, name):
            raise ModelError(
                f"{base}: {name} is {getattr(tokenizer, name)}, but was {getattr(chat, name)} when the run was "
                "launched: the tokenizer in the model's folder has changed. Put it back, or clone the run"
            )
    return tokenizer


def _frozen_template(chat: ChatConfig, folder: RunFolder) -> str | None:
    if not chat.template_sha256:
        return None
    file = folder.chat_template_path
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}): put it back, or clone the run") from error
    if hashlib.sha256(text).hexdigest() != chat.template_sha256:
        raise ModelError(f"{file}: is not the template that the run was launched with: put it back, or clone the run")
    return text.decode("utf-8")
