"""[chat] from launch to checkpoint: frozen templates, special tokens, and what a saved tokenizer says to others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.chat import ChatTokenizer
from engine.errors import ConfigError, EngineError, ModelError
from engine.run.config import RunConfig
from engine.run.config_chat import ChatConfig
from engine.run.folder import RunFolder
from engine.run_tokenizer import chat_tokenizer, frozen, run_tokenizer, template_of

ASK = [{"role": "user", "content": "What is the colour of the sea?"}]
SHOUTED = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '!\n' ~ m.content ~ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant!\n' ~ mood }}{% endif %}"
)


@pytest.fixture
def model(tmp_path: Path, make_tiny_tokenizer: Callable[..., None]) -> Path:
    make_tiny_tokenizer(tmp_path / "model")
    return tmp_path / "model"


def launched(model: Path, run: Path, chat: ChatConfig) -> tuple[RunConfig, RunFolder]:
    """A run on `model` as a launch leaves it, without data."""
    folder = RunFolder(run)
    run.mkdir()
    template = template_of(chat, model, None)
    tokenizer = chat_tokenizer(chat, model, None, template)
    if template is not None:
        folder.chat_template_path.write_text(template)
    config = RunConfig(chat=frozen(chat, template, tokenizer))
    return replace(config, model=replace(config.model, path=str(model))), folder


class TestFrozen:
    def test_the_models_own_template_is_frozen_too(self, model: Path, tmp_path: Path) -> None:
        config, folder = launched(model, tmp_path / "run", ChatConfig())
        before = run_tokenizer(config, folder)
        assert (config.chat.eos_id, config.chat.end_of_turn_id, config.chat.pad_id) == (2, 2, 3)
        (model / "chat_template.jinja").write_text(SHOUTED)
        after = run_tokenizer(config, folder)
        assert after.prompt_ids(ASK) == before.prompt_ids(ASK)
        assert after.sha256 == before.sha256
        assert ChatTokenizer.from_folder(model).prompt_ids(ASK) != after.prompt_ids(ASK)

    def test_a_template_of_ones_own_with_arguments(self, model: Path, tmp_path: Path) -> None:
        file = tmp_path / "shouted.jinja"
        file.write_text(SHOUTED)
        chat = ChatConfig(template=str(file), arguments="mood=glad")
        config, folder = launched(model, tmp_path / "run", chat)
        file.unlink()
        assert run_tokenizer(config, folder).render(ASK, True).endswith("<|im_start|>assistant!\nglad")

    def test_an_altered_template_is_refused(self, model: Path, tmp_path: Path) -> None:
        config, folder = launched(model, tmp_path / "run", ChatConfig())
        folder.chat_template_path.write_text(SHOUTED)
        with pytest.raises(ModelError, match="not the template that the run was launched with"):
            run_tokenizer(config, folder)
        folder.chat_template_path.unlink()
        with pytest.raises(ModelError, match="cannot be read"):
            run_tokenizer(config, folder)

    def test_other_special_tokens_than_at_launch_are_refused(self, model: Path, tmp_path: Path) -> None:
        config, folder = launched(model, tmp_path / "run", ChatConfig())
        settings = json.loads((model / "tokenizer_config.json").read_text())
        (model / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<|endoftext|>"}))
        with pytest.raises(ModelError, match="pad_id is 0, but was 3 when the run was launched"):
            run_tokenizer(config, folder)

    def test_a_model_without_a_template(self, tmp_path: Path, make_tiny_tokenizer: Callable[..., None]) -> None:
        make_tiny_tokenizer(tmp_path / "base", chat_template=None)
        config, folder = launched(tmp_path / "base", tmp_path / "run", ChatConfig())
        (tmp_path / "base" / "chat_template.jinja").write_text(SHOUTED)
        assert config.chat.template_sha256 == ""
        assert run_tokenizer(config, folder).chat_template is None

    @pytest.mark.parametrize(
        ("chat", "reason"),
        [
            (ChatConfig(template="none.jinja"), 'template = "none.jinja": cannot be read'),
            (ChatConfig(arguments="messages=1"), "messages is given"),
            (ChatConfig(eos="<|end|>"), r'eos = "<\|end\|>": no token'),
            (ChatConfig(pad="<|nothing|>"), r'pad = "<\|nothing\|>": no token'),
        ],
    )
    def test_what_cannot_be(self, chat: ChatConfig, reason: str, model: Path) -> None:
        with pytest.raises(EngineError, match=reason):
            chat_tokenizer(chat, model, None, template_of(chat, model, None))

    def test_arguments_for_no_template(self, tmp_path: Path, make_tiny_tokenizer: Callable[..., None]) -> None:
        make_tiny_tokenizer(tmp_path / "base", chat_template=None)
        with pytest.raises(ConfigError, match="no chat template to give them to"):
            chat_tokenizer(ChatConfig(arguments="a=1"), tmp_path / "base", None, None)


class TestSaved:
    """A checkpoint's tokenizer renders as trained: for this program, and for transformers."""

    CHAT = ChatConfig(arguments="mood=glad", eos="<|endoftext|>", pad="<|endoftext|>")

    @pytest.fixture
    def saved(self, model: Path, tmp_path: Path) -> Path:
        (model / "special_tokens_map.json").write_text(
            '{"eos_token": "<|im_end|>", "pad_token": {"content": "<|pad|>"}}'
        )
        tokenizer = chat_tokenizer(self.CHAT, model, None, SHOUTED)
        (tmp_path / "saved").mkdir()
        tokenizer.save(tmp_path / "saved")
        return tmp_path / "saved"

    def test_for_transformers(self, saved: Path, model: Path) -> None:
        from transformers import AutoTokenizer

        theirs = AutoTokenizer.from_pretrained(str(saved))
        ours = chat_tokenizer(self.CHAT, model, None, SHOUTED)
        assert theirs.apply_chat_template(ASK, add_generation_prompt=True)["input_ids"] == ours.prompt_ids(ASK)
        assert theirs.decode(ours.prompt_ids(ASK)).endswith("glad")
        assert (theirs.eos_token, theirs.pad_token) == ("<|endoftext|>", "<|endoftext|>")
        # Older readers know the template of the config alone.
        (saved / "chat_template.jinja").unlink()
        assert AutoTokenizer.from_pretrained(str(saved)).chat_template == ours.chat_template

    def test_as_the_adapter_over_its_base(self, saved: Path, model: Path) -> None:
        ours = ChatTokenizer.of_model(model, saved)
        assert ours.render(ASK, True).endswith("assistant!\nglad")
        assert (ours.eos_id, ours.pad_id, ours.end_of_turn_id) == (0, 0, 2)
        assert ChatTokenizer.of_model(model, None).chat_template != ours.chat_template
        assert template_of(ChatConfig(), model, saved) == ours.chat_template

    def test_what_was_not_changed_is_copied_to_the_byte(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        ChatTokenizer.from_folder(model).save(tmp_path / "plain")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "plain" / file).read_bytes() == (model / file).read_bytes()
        assert not (tmp_path / "plain" / "chat_template.jinja").exists()
        shutil.rmtree(tmp_path / "plain")
