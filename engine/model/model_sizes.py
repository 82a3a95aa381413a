"""The sizes of a model that decide what it needs of memory and time, from config.json and the headers of its weights.

Torch-free, and no weight is read. Knows nothing of runs. Families that name things otherwise (GPT-2's n_embd) are read
by their names; what a config does not say is derived from the shapes or from what is usual.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.model.model_files import CONFIG, read_json, tensor_infos, weight_files

_IN_A_LAYER = re.compile(r"\.\d+\.")
_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True)
class ModelSizes:
    """What a decoder is made of."""

    parameters: int
    """All weights, tied ones once."""
    stored_bytes: int
    """Of all weights, as they lie in the files."""
    layers: int
    hidden: int
    """H."""
    intermediate: int
    """I: width of the feed-forward layer."""
    gated: bool
    """Whether the feed-forward layer has a gate beside it (SwiGLU and its kin)."""
    query: int
    """Query heads times head width."""
    key_value: int
    """Key/value heads times head width."""
    vocabulary: int
    """V, rows of the embedding."""
    softcap: bool
    """Whether attention scores are capped (Gemma 2), so that they are held in memory."""
    query_heads: int
    matrices: dict[str, tuple[int, int]]
    """Name -> shape of the linear layers inside the blocks, which are what an adapter lies over."""
    few_passes: bool = False
    """Whether its layers are those that `gated_block` works on a CPU, as far as its config says."""

    @property
    def head_parameters(self) -> int:
        """Of the LM head, tied or not."""
        return self.vocabulary * self.hidden

    @property
    def block_parameters(self) -> int:
        """Of the linear layers of all blocks: what a token is multiplied by."""
        return sum(rows * columns for rows, columns in self.matrices.values())


def read_model_sizes(folder: Path) -> ModelSizes | None:
    """The sizes of the model in `folder`; None where its files do not say enough."""
    try:
        config = read_json(folder / CONFIG)
        infos = {name: info for file in weight_files(folder) for name, info in tensor_infos(file).items()}
        inner = config.get("text_config")
        return _sizes(inner if isinstance(inner, dict) else config, infos)
    except (ModelError, KeyError, TypeError, ValueError, StopIteration):
        return None


def _sizes(config: dict[str, Any], infos: dict[str, Any]) -> ModelSizes:
    layers = _first(config, "num_hidden_layers", "n_layer")
    hidden = _first(config, "hidden_size", "n_embd")
    heads = _first(config, "num_attention_heads", "n_head")
    width = int(config.get("head_dim") or hidden // heads)
    matrices = {
        name: (info.shape[0], info.shape[1])
        for name, info in infos.items()
        if len(info.shape) == 2 and _IN_A_LAYER.search(name) and name.endswith(".weight")
    }
    return ModelSizes(
        parameters=sum(info.elements for info in infos.values()),
        stored_bytes=sum(info.elements * _BYTES.get(info.dtype, 4) for info in infos.values()),
        layers=layers,
        hidden=hidden,
        intermediate=int(config.get("intermediate_size") or config.get("n_inner") or 4 * hidden),
        gated=any("gate" in name for name in matrices),
        query=heads * width,
        key_value=int(config.get("num_key_value_heads") or heads) * width,
        vocabulary=int(config["vocab_size"]),
        softcap=bool(config.get("attn_logit_softcapping")),
        query_heads=heads,
        matrices=matrices,
        few_passes=config.get("model_type") == "llama",
    )


def _first(config: dict[str, Any], *names: str) -> int:
    return int(next(config[name] for name in names if config.get(name)))
