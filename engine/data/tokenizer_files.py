"""What a model folder's JSON files say of its tokenizer: template, special tokens, ids that stop, embedding size.

Reads tokenizer_config.json, special_tokens_map.json, chat_template.jinja, generation_config.json and config.json; each
but tokenizer.json may be absent. Knows nothing of how text becomes tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from engine.errors import ModelError

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer's settings, as the files of one model folder give them."""

    folder: Path
    tokenizer_json: Path
    special_texts: dict[str, str]
    """From names like `eos_token` to the text of the token."""
    special_ids: dict[str, int]
    """The same from the ids in generation_config.json and config.json; the first where several are given."""
    stop_ids: frozenset[int]
    """Every end-of-text id that generation_config.json names; config.json's where it names none."""
    chat_template: str | None
    embedding_rows: int | None
    """config.json's vocab_size."""

    @property
    def name(self) -> str:
        """What an error calls the model."""
        return self.folder.name or str(self.folder)

    def as_json(self) -> dict[str, Any]:
        """For another process; `from_json` is the inverse."""
        paths = {"folder": str(self.folder), "tokenizer_json": str(self.tokenizer_json)}
        return {**asdict(self), **paths, "stop_ids": sorted(self.stop_ids)}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> TokenizerFiles:
        """What `as_json` gave."""
        paths = {name: Path(written[name]) for name in ("folder", "tokenizer_json")}
        return cls(**{**written, **paths, "stop_ids": frozenset(written["stop_ids"])})

    @classmethod
    def read(cls, folder: Path) -> TokenizerFiles:
        """Raises ModelError where there is no tokenizer or a file is not JSON."""
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such folder: expected a model folder with config.json and tokenizer.json")
        tokenizer_json = folder / "tokenizer.json"
        if not tokenizer_json.is_file():
            raise ModelError(_no_tokenizer(folder))
        tokenizer = read_object(folder / "tokenizer_config.json")
        config = read_object(folder / "config.json")
        generation = read_object(folder / "generation_config.json")
        texts = _special_texts(read_object(folder / "special_tokens_map.json")) | _special_texts(tokenizer)
        inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
        rows = config.get("vocab_size", inner.get("vocab_size") if inner else None)
        return cls(
            folder,
            tokenizer_json,
            texts,
            _special_ids(config) | _special_ids(generation),
            frozenset(_ids(generation.get("eos_token_id")) or _ids(config.get("eos_token_id"))),
            _chat_template(folder, tokenizer),
            rows if isinstance(rows, int) else None,
        )

    @classmethod
    def of_model(cls, folder: Path, adapter: Path | None) -> TokenizerFiles:
        """A base folder's, with what an adapter that was trained over it says otherwise. Raises ModelError."""
        base = cls.read(folder)
        if adapter is None or not (adapter / "tokenizer.json").is_file():
            return base
        own = cls.read(adapter)
        return replace(
            base,
            tokenizer_json=own.tokenizer_json,
            special_texts=base.special_texts | own.special_texts,
            chat_template=base.chat_template if own.chat_template is None else own.chat_template,
        )

    @staticmethod
    def read_template(folder: Path) -> str | None:
        """The chat template that a folder's files give. Raises ModelError."""
        return _chat_template(folder, read_object(folder / "tokenizer_config.json"))


def largest_id(folder: Path) -> int:
    """The largest id that a folder's tokenizer.json can give, without building the tokenizer. Raises ModelError."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(_no_tokenizer(folder))
    described = read_object(file)
    model = described.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    try:
        ids = [int(token["id"]) for token in described.get("added_tokens") or []]
        if isinstance(vocabulary, dict):
            ids += [max(vocabulary.values(), default=-1)]
        elif isinstance(vocabulary, list):
            ids += [len(vocabulary) - 1]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: not a tokenizer ({error!r}): copy the file from the model again") from error
    return max(ids, default=-1)


def _no_tokenizer(folder: Path) -> str:
    if (folder / "tokenizer.model").is_file():
        return (
            f"{folder}: the tokenizer is only there as tokenizer.model (SentencePiece); tokenizer.json is needed. "
            "Make it once with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return (
        f"{folder}: no tokenizer.json, so text cannot become tokens: copy tokenizer.json and tokenizer_config.json "
        "from the model that this one was made from"
    )


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object; an empty one where there is no file. Raises ModelError."""
    if not file.is_file():
        return {}
    try:
        read = orjson.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error}): copy the file from the model again") from error
    if not isinstance(read, dict):
        raise ModelError(f"{file}: a {type(read).__name__}, where a JSON object was expected: copy the file again")
    return read


def _special_texts(described: dict[str, Any]) -> dict[str, str]:
    texts = {}
    for name in SPECIAL_NAMES:
        value = described.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            texts[name] = text
    return texts


def _special_ids(described: dict[str, Any]) -> dict[str, int]:
    found = {name: _ids(described.get(f"{name}_id")) for name in SPECIAL_NAMES}
    return {name: ids[0] for name, ids in found.items() if ids}


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0]


def _chat_template(folder: Path, tokenizer: dict[str, Any]) -> str | None:
    """chat_template.jinja, else tokenizer_config.json: one source, or several by name of which "default" is meant."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelError(f"{file}: cannot be read ({error}): copy the file from the model again") from error
    given = tokenizer.get("chat_template")
    if isinstance(given, list):
        named = {t.get("name"): t.get("template") for t in given if isinstance(t, dict)}
        given = named.get("default", next(iter(named.values())) if len(named) == 1 else None)
    return given if isinstance(given, str) else None
