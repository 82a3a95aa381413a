"""Chat templates: code of strangers in a sandbox, and conversations that they cannot render."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.chat import ChatTokenizer
from engine.errors import DataError, ModelError

ASK = [{"role": "user", "content": "What is the colour of the sea?"}]
TokenizerMaker = Callable[..., None]


def make(folder: Path, maker: TokenizerMaker, template: str) -> ChatTokenizer:
    maker(folder, chat_template=template)
    return ChatTokenizer.from_folder(folder)


class TestSandbox:
    """A template is code of a stranger."""

    @pytest.mark.parametrize(
        "source",
        [
            "{{ ''.__class__.__mro__ }}",
            "{{ messages.append(1) }}",
            "{% set n = namespace(__class__=1) %}",
            "{% for i in range(10**9) %}x{% endfor %}",
            "{{ raise_exception('no') }}",
            "{{ messages[0].nothing.more }}",
        ],
    )
    def test_refusals_are_data_errors(self, source: str, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker) -> None:
        ours = make(tmp_path, make_tiny_tokenizer, source)
        with pytest.raises(DataError, match=r"chat template of .* refuses"):
            ours.prompt_ids(ASK)

    def test_generation_tag_and_loop_controls(self, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker) -> None:
        source = (
            "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
            "{{ {'a': '<ü>'} | tojson }}"
        )
        assert make(tmp_path, make_tiny_tokenizer, source).render(ASK) == ASK[0]["content"] + '{"a": "<ü>"}'

    def test_template_that_does_not_parse(self, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker) -> None:
        with pytest.raises(ModelError, match="does not parse"):
            make(tmp_path, make_tiny_tokenizer, "{% for %}")

    def test_template_that_tells_the_date_is_a_pure_function(
        self, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker
    ) -> None:
        ours = make(tmp_path, make_tiny_tokenizer, "{{ strftime_now('%Y-%m-%d') }}{{ messages[0].content }}<|im_end|>")
        assert ours.render(ASK).startswith("2024-07-26What")
        assert any("26 July 2024" in note for note in ours.notes)

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            ([], "no messages"),
            ([{"role": "robot", "content": "x"}], "role 'robot'"),
            ([{"role": "user", "content": None}], "content is a NoneType"),
            (["hi"], "a str"),
        ],
    )
    def test_messages_of_another_shape(
        self, messages: Any, reason: str, tmp_path: Path, make_tiny_tokenizer: TokenizerMaker
    ) -> None:
        with pytest.raises(DataError, match=reason):
            make(tmp_path, make_tiny_tokenizer, "").prompt_ids(messages)
