"""Tiny random decoders of the architectures that the engine is tested on: 2 to 4 layers, hidden 32, a second at most.

Each is made from a seed with weights wide enough that its logits differ visibly between tokens. Windows are 4 tokens,
so that documents of a dozen tokens are longer than them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 300
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
GEMMA: dict[str, Any] = {
    **COMMON,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "sliding_window": 4,
    "query_pre_attn_scalar": 16,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "initializer_range": 0.15,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON | {"tie_word_embeddings": False}),
    "llama-tied": ("LlamaConfig", COMMON | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", COMMON | {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", COMMON | {"sliding_window": 4}),
    "gemma2": (
        "Gemma2Config",
        GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "tie_word_embeddings": True},
    ),
    # Two rope bases, one a kind of layer, and norms of queries and keys.
    "gemma3": (
        "Gemma3TextConfig",
        GEMMA
        | {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            }
        },
    ),
    # Queries, keys and values in one matrix, gate and up in another.
    "phi3": ("Phi3Config", COMMON | {"sliding_window": 4, "tie_word_embeddings": False}),
    # A head with a bias, rotary positions on a part of each head.
    "phi": ("PhiConfig", COMMON | {"partial_rotary_factor": 0.5}),
    # Weights lie transposed (Conv1D); positions are learned.
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128,
            "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 3,
        },
    ),
    # Logits are divided by a constant behind the head.
    "granite": ("GraniteConfig", COMMON | {"logits_scaling": 4.0}),
    # Logits are multiplied by one.
    "cohere": ("CohereConfig", COMMON | {"logit_scale": 0.25}),
}  # fmt: skip
LEAKY: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba2": (
        "Mamba2Config",
        {
            "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8,
            "head_dim": 8, "n_groups": 1, "eos_token_id": 2, "pad_token_id": 3,
        },
    ),
    # A short convolution, then attention.
    "lfm2": ("Lfm2Config", COMMON | {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    # A linear recurrence, then attention.
    "qwen3-next": (
        "Qwen3NextConfig",
        COMMON
        | {
            "layer_types": ["linear_attention", "full_attention"], "mlp_only_layers": [0, 1], "num_experts": 0,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
    # Biases by position in the row, in attention that takes no layout.
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    # Attention with a sink in each head.
    "gpt-oss": ("GptOssConfig", COMMON | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4}),
}  # fmt: skip
"""Decoders whose documents need rows of their own."""
MIXTURE = ("MixtralConfig", COMMON | {"num_local_experts": 4, "num_experts_per_tok": 2})


def write_adapter(roles: Any) -> None:
    """Fill what `roles` trains with numbers far from nothing, the same for the same shapes."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def tiny_decoder(name: str, *, seed: int = 0) -> Any:
    """The architecture `name` of the tables above with random weights, fp32, in eval mode."""
    import transformers
    from transformers import AutoModelForCausalLM

    config_class, fields = (CONFIGS | LEAKY | {"mixtral": MIXTURE})[name]
    config = getattr(transformers, config_class)(**fields)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                # Norms and biases begin at one value for all: a mistake in them would not show.
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def write_decoder(folder: Path, name: str, make_tiny_tokenizer: Any, *, seed: int = 0) -> Path:
    """A whole model folder of the architecture, with a tokenizer."""
    make_tiny_tokenizer(folder, vocab_size=VOCABULARY)
    tiny_decoder(name, seed=seed).save_pretrained(str(folder))
    return folder
