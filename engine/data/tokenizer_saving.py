"""Writing a tokenizer beside the weights that were trained with it, so that whoever loads them renders as trained.

Files are copied as they are; only where the template or a special token in force departs from what they say are
chat_template.jinja, tokenizer_config.json and special_tokens_map.json written anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from engine.data.tokenizer_files import TokenizerFiles, read_object

COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip
TEMPLATE_FILE = "chat_template.jinja"


def copy_tokenizer(source: Path, into: Path) -> None:
    """Copy the tokenizer's files of a model folder."""
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, into / name)


def save_tokenizer(files: TokenizerFiles, chat_template: str | None, tokens: Mapping[str, str], into: Path) -> None:
    """Write the tokenizer of `files` into a folder, with the template and the special tokens that were used.

    `tokens` are texts by name, such as `eos_token`, that replace what the files say.
    """
    copy_tokenizer(files.tokenizer_json.parent, into)
    template = chat_template if chat_template != TokenizerFiles.read_template(into) else None
    if template is not None:
        (into / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    _change(into / "tokenizer_config.json", {**tokens, **({} if template is None else {"chat_template": template})})
    if (into / "special_tokens_map.json").is_file():
        _change(into / "special_tokens_map.json", tokens)


def _change(file: Path, changes: Mapping[str, str]) -> None:
    described = read_object(file)
    if any(described.get(key) != value for key, value in changes.items()):
        file.write_text(json.dumps({**described, **changes}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
