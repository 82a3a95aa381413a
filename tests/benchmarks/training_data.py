"""What the training benchmark trains: a model folder of SmolLM2-135M's shape, and rows of random token ids.

Owns the sizes of the comparison: prompts of 130 to 170 tokens, completions of 80 to 200. Speed does not depend on which
tokens they are, so the rows are drawn from a seed, and without a model folder the weights are, too. A row is a pair;
SFT takes its chosen answer. Ids begin above the special tokens: TRL finds a sequence's end by its padding id.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMOLLM2_135M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
"""The architecture of HuggingFaceTB/SmolLM2-135M-Instruct."""
PAD, END, UNKNOWN = range(3)
FIRST_ID = 20
PROMPT_TOKENS = (130, 170)
COMPLETION_TOKENS = (80, 200)


@dataclass(frozen=True)
class Row:
    """A prompt and two answers, as token ids."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def draw_rows(count: int, vocabulary: int, seed: int = 0, *, stretch: int = 1) -> list[Row]:
    """`count` different rows, `stretch` times as long as usual; the same for the same seed."""
    draw = random.Random(seed)

    def ids(least: int, most: int) -> list[int]:
        return [draw.randrange(FIRST_ID, vocabulary) for _ in range(stretch * draw.randint(least, most))]

    return [Row(ids(*PROMPT_TOKENS), ids(*COMPLETION_TOKENS), ids(*COMPLETION_TOKENS)) for _ in range(count)]


def mean_tokens(*, pair: bool) -> float:
    """Of a row that is not stretched: its prompt once, and one answer or both."""
    return sum(PROMPT_TOKENS) / 2 + (2 if pair else 1) * sum(COMPLETION_TOKENS) / 2


def write_model(folder: Path, *, layers: int | None, source: Path | None, device: Any = "cpu", **shape: Any) -> Path:
    """A model folder in bf16: that of `source` or random weights, drawn on `device`, cut to `layers`. `shape` overrides
    fields of random ones, `model_type` among them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    if source is not None:
        cut = {} if layers is None else {"num_hidden_layers": layers}
        model = AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.bfloat16, **cut)
    else:
        fields = {**SMOLLM2_135M, **shape, "bos_token_id": None, "eos_token_id": END, "pad_token_id": PAD}
        fields["num_hidden_layers"] = layers or fields["num_hidden_layers"]
        config = AutoConfig.for_model(fields.pop("model_type", "llama"), **fields)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.config.pad_token_id = PAD
    model.save_pretrained(str(folder))
    _write_tokenizer(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    """A tokenizer that is asked for its padding id alone."""
    from tokenizers import Tokenizer, models

    vocabulary = {"<pad>": PAD, "<end>": END, "<unknown>": UNKNOWN}
    Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>")).save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unknown>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}", **names})
    )
