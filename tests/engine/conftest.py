"""Tiny models for the engine's tests, made from a seed in well under a second.

`tiny_model_folder` is a whole model folder as a person would point at: random Llama weights (hidden 32, 2 layers),
a byte-level BPE tokenizer trained on a few sentences, a ChatML template. Tests read it and never write into it; a test
that wants a broken or different one makes its own with `make_tiny_model`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
END_OF_TEXT, IM_START, IM_END, PAD = range(4)
SENTENCES = (
    "The cat sat on the mat and looked at the rain.",
    "What is the colour of the sea? The sea is blue.",
    "Name three birds. A robin, a heron and a crow.",
    "user asks, assistant answers, system says how.",
    "Write one line about bread. Bread is warm and good.",
)


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of models, and what is approved, lies in folders of the tests, never in the person's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def write_tiny_tokenizer(folder: Path, *, chat_template: str | None = CHATML, vocab_size: int = 300) -> None:
    """A byte-level BPE tokenizer in `folder`, in the files that transformers reads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 128,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_tiny_model(
    folder: Path, *, seed: int = 0, chat_template: str | None = CHATML, vocab_size: int = 300, **config: Any
) -> Path:
    """A whole model folder; `config` overrides fields of its LlamaConfig."""
    import torch
    from transformers.models.llama import LlamaConfig, LlamaForCausalLM

    write_tiny_tokenizer(folder, chat_template=chat_template, vocab_size=vocab_size)
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": IM_END,
        "pad_token_id": PAD,
        # Wide enough that the logits of a random model differ visibly between tokens.
        "initializer_range": 0.3,
        **config,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**fields))
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with its tokenizer and ChatML template; read only."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., Path]:
    """`make_tiny_model(folder, seed=…, chat_template=…, vocab_size=…, **llama_config) -> folder`."""
    return write_tiny_model


@pytest.fixture(scope="session")
def make_tiny_tokenizer() -> Callable[..., None]:
    """`make_tiny_tokenizer(folder, chat_template=…, vocab_size=…)`: tokenizer files alone."""
    return write_tiny_tokenizer


@pytest.fixture
def tiny_model(tiny_model_folder: Path) -> Any:
    """The tiny Llama in fp32, in eval mode, fresh for each test."""
    import torch
    from transformers.models.llama import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(str(tiny_model_folder), dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def run_isolated() -> Callable[[str], str]:
    """Run Python code in a process of its own and return what it printed."""

    def run(code: str) -> str:
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
        return done.stdout.strip()

    return run
