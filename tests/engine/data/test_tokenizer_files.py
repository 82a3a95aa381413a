"""Model folders whose tokenizer cannot be used: every refusal names the file and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.chat import ChatTokenizer
from engine.errors import ModelError

ASK = [{"role": "user", "content": "What is the colour of the sea?"}]
TokenizerMaker = Callable[..., None]


class TestBrokenFolders:
    """Every refusal names the file and what to do."""

    def test_without_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no tokenizer\.json.*copy"):
            ChatTokenizer.from_folder(tmp_path)
        (tmp_path / "tokenizer.model").touch()
        with pytest.raises(ModelError, match="SentencePiece"):
            ChatTokenizer.from_folder(tmp_path)
        with pytest.raises(ModelError, match="no such folder"):
            ChatTokenizer.from_folder(tmp_path / "none")

    def test_not_a_tokenizer(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(ModelError, match="not a tokenizer"):
            ChatTokenizer.from_folder(tmp_path)

    def test_damaged_settings(self, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker) -> None:
        make_tiny_tokenizer(tmp_path)
        (tmp_path / "config.json").write_text("[1]")
        with pytest.raises(ModelError, match=r"config\.json: a list"):
            ChatTokenizer.from_folder(tmp_path)
        (tmp_path / "config.json").write_bytes(b"\xff{")
        with pytest.raises(ModelError, match="cannot be read as JSON"):
            ChatTokenizer.from_folder(tmp_path)

    def test_vocabulary_larger_than_the_embedding(self, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker) -> None:
        make_tiny_tokenizer(tmp_path)
        (tmp_path / "config.json").write_text('{"vocab_size": 299}')
        with pytest.raises(ModelError, match=r"ids up to 299.* has 299 rows"):
            ChatTokenizer.from_folder(tmp_path)

    def test_without_end_of_text(self, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker) -> None:
        make_tiny_tokenizer(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text("{}")
        with pytest.raises(ModelError, match="no end-of-text token"):
            ChatTokenizer.from_folder(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</none>"}')
        with pytest.raises(ModelError, match="eos_token is '</none>'"):
            ChatTokenizer.from_folder(tmp_path)

    def test_messages_without_a_template(self, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker) -> None:
        make_tiny_tokenizer(tmp_path, chat_template=None)
        ours = ChatTokenizer.from_folder(tmp_path)
        with pytest.raises(ModelError, match="no chat template"):
            ours.prompt_ids(ASK)
        assert ours.prompt_ids("The cat")
