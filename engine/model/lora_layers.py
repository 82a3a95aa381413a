"""LoRA layers over a base: their shape, which layers carry them, and reading them from a folder that peft wrote.

The adapted weight is W + s B A with A of (r, in), B of (out, r) and s = alpha / r (Hu et al. 2021, arXiv:2106.09685),
or s = alpha / sqrt(r) rank-stabilised, so that the update does not shrink as r grows (Kalajdzievski 2023,
arXiv:2312.03732). With DoRA each row of the sum (what feeds one output) is set to a trained length (Liu et al. 2024,
arXiv:2402.09353). B begins at zero, so a fresh adapter changes nothing.

Owns what is asked of peft. Invariant: every name that was asked for is a layer that there is; peft itself is content
when one of several names matches.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from engine.errors import ConfigError, ModelError
from engine.model.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

ALL_LINEAR = "all-linear"
"""Every linear layer but the head."""
_NAMES_SHOWN = 20
_MERGED = "merged"


def fresh_lora_config(
    model: Any, *, rank: int, alpha: float, dropout: float, rslora: bool, dora: bool, targets: str
) -> Any:
    """peft's config of a new adapter. Raises ConfigError for a target that is no layer of `model`."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rslora,
        use_dora=dora,
        target_modules=_targets(model, targets),
    )


def _targets(model: Any, written: str) -> str | list[str]:
    """The layers that `written` names: peft's own word for all of them, or the names."""
    names = [name.strip() for name in written.split(",") if name.strip()]
    if names == [ALL_LINEAR]:
        return ALL_LINEAR
    there = linear_layer_names(model)
    unknown = [name for name in names if name not in there]
    if unknown or not names:
        shown = ", ".join(sorted(there)[:_NAMES_SHOWN]) + (", …" if len(there) > _NAMES_SHOWN else "")
        raise ConfigError(
            f'[adapter] targets = "{written}": this model has no linear layer {unknown[0] if unknown else "named so"}. '
            f"It has: {shown}. Name some of them, separated by commas, or set {ALL_LINEAR}"
        )
    return names


def linear_layer_names(model: Any) -> set[str]:
    """Last parts of the names of the linear layers but the head: "q_proj", …, as they are the same in every layer."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    }


def merge_adapter(model: Any, adapter: Path) -> Any:
    """`model` with the adapter folded into its weights, without tuner layers."""
    peft_model = with_adapter(model, read_lora_config(adapter), _MERGED)
    load_adapter_weights(peft_model, adapter, _MERGED)
    return peft_model.merge_and_unload()


def with_adapter(model: Any, config: Any, name: str) -> Any:
    """A PeftModel over `model` with one fresh adapter. Raises ConfigError for layers that peft does not adapt."""
    from peft import get_peft_model

    with _peft_asides():
        try:
            return get_peft_model(model, config, adapter_name=name)
        except ValueError as error:
            others = ", ".join(sorted(linear_layer_names(model))[:_NAMES_SHOWN])
            raise ConfigError(
                f"[adapter] targets: peft cannot adapt these layers ({' '.join(str(error).split())[:300]}). "
                f"Name others, separated by commas: {others}"
            ) from error


def add_saved_adapter(peft_model: Any, folder: Path, name: str) -> None:
    """One more adapter over the same base, with the weights of `folder`. Raises ModelError where they do not fit."""
    with _peft_asides():
        peft_model.add_adapter(name, read_lora_config(folder))
    load_adapter_weights(peft_model, folder, name)


def add_fresh_adapter(peft_model: Any, config: Any, name: str) -> None:
    """One more adapter over the same base, of the shape of `config`, which changes nothing before it has learnt."""
    with _peft_asides():
        peft_model.add_adapter(name, config)


@contextmanager
def _peft_asides() -> Iterator[None]:
    """What peft 0.21 says of its own ways, and of nothing that was asked of it."""
    with warnings.catch_warnings():
        # It asks transformers 5.23 for a property under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        # It sets the orientation of GPT-2's transposed layers right by itself, and says so for each of them.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        # It looks for experts by name; transformers holds them in one block, which is no linear layer.
        for found in ("target_parameters=.* were set but no", "The following (rank|alpha)_pattern keys did not match"):
            warnings.filterwarnings("ignore", message=found, category=RuntimeWarning)
        yield


def read_lora_config(folder: Path, *, dropout: float = 0.0) -> Any:
    """The LoRA shape of a saved adapter, without what only its task needs (a score head is ours, not peft's).

    `dropout` is what this run asks for: what the adapter was trained with binds no other, and a frozen one has none.
    """
    from peft import LoraConfig

    saved = LoraConfig.from_pretrained(str(folder))
    if not isinstance(saved, LoraConfig):
        raise ModelError(f"{folder / ADAPTER_CONFIG}: an adapter of type {saved.peft_type}; only LoRA is supported")
    targets = saved.target_modules
    saved.target_modules = set(targets) - {"score"} if not isinstance(targets, str) else targets
    saved.lora_dropout = dropout
    saved.modules_to_save = None
    saved.task_type = None
    saved.inference_mode = False
    return saved


def load_adapter_weights(peft_model: Any, folder: Path, adapter: str) -> None:
    """Copy a saved adapter's LoRA weights into `adapter`. Raises ModelError where they do not fit this base or are no
    numbers."""
    from peft import set_peft_model_state_dict

    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise ModelError(f"{folder}: no {ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG}: the adapter is not whole")
    weights = {name: value for name, value in load_file(file).items() if ".lora_" in name}
    for name, value in weights.items():
        if bad := int((~value.isfinite()).sum()):
            raise ModelError(
                f"{file}: the weight {name} holds {bad} values that are NaN or infinite, of {value.numel()}: the file "
                "is damaged or the run diverged: use an earlier checkpoint or copy it again"
            )
    try:
        result = set_peft_model_state_dict(peft_model, weights, adapter_name=adapter)
    except RuntimeError as error:
        raise ModelError(f"{file}: the adapter was made for another base model: {error}") from error
    missing = [name for name in result.missing_keys if f".{adapter}." in name]
    if result.unexpected_keys or missing:
        example = (list(result.unexpected_keys) + missing)[0]
        raise ModelError(
            f"{file}: the adapter was made for another base model ({len(missing)} weights missing, "
            f"{len(result.unexpected_keys)} unknown, for example {example})"
        )
