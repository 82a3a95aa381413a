"""Loading a causal language model from a folder: checked first, safetensors only, no remote code, nothing half there.

Invariant: a model that comes back is whole (no weight was made up for a missing one), finite, in the precision asked
for, on the device asked for, and in eval mode. torch and transformers are imported when a model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.model.four_bit import quantization_settings
from engine.model.model_files import CONFIG, check_model_folder, read_adapter_config

__all__ = ["load_causal_lm", "load_for_inference", "read_adapter_config"]


def load_causal_lm(folder: Path, *, dtype: Any, device: Any, four_bit: bool = False) -> Any:
    """The transformers model in `folder`, with the attention that `per_sample` names. Raises ModelError.

    `dtype` is a torch.dtype, `device` a torch.device or its name. Weights of the head may be missing where the folder
    is a reward model (…ForSequenceClassification): such a model is read for its hidden states. `four_bit` holds the
    linear layers but the head in 4 bits, see `engine.model.four_bit`.
    """
    folder = Path(folder)
    config = check_model_folder(folder)
    arguments: dict[str, Any] = {}
    if four_bit:
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(**quantization_settings(), bnb_4bit_compute_dtype=dtype)
    model, problems = _from_pretrained(folder, dtype, device, arguments)
    architectures = [str(name) for name in config.get("architectures") or []]
    missing = sorted(problems["missing_keys"])
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        missing = [name for name in missing if not name.startswith("lm_head.")]
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}: copy or download the model again"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < int(model.config.get_text_config().vocab_size):
        raise ModelError(f"{folder}: the embedding has {rows} rows, fewer than vocab_size in {CONFIG}: correct it")
    _check_finite(model, folder)
    from engine.model.attention import per_sample

    model.config._attn_implementation = per_sample(model)
    return model.eval()


def load_for_inference(folder: Path, adapter: Path | None, *, dtype: Any, device: Any) -> Any:
    """A model to sample from, with its adapter if there is one. Raises ModelError.

    In fp32 the adapter is merged into the weights, which saves two products a layer and token. In lower precision a
    merged weight would be rounded away from what was trained, so the adapter stays beside it.
    """
    import torch

    model = load_causal_lm(folder, dtype=dtype, device=device)
    if adapter is None:
        return model
    read_adapter_config(adapter, folder)
    if dtype == torch.float32:
        from engine.model.lora_layers import merge_adapter

        return merge_adapter(model, adapter).eval()
    from engine.model.adapters import POLICY, build_roles

    with build_roles(model, kind="lora", trained=POLICY, start_adapter=adapter).use(POLICY) as as_policy:
        return as_policy.eval()


def _from_pretrained(folder: Path, dtype: Any, device: Any, more: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    device = torch.device(device)
    arguments = {**more, **({"device_map": {"": device}} if device.type != "cpu" else {})}
    try:
        with _quiet("transformers"):
            loaded = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                # None would ask at the terminal.
                trust_remote_code=False,
                output_loading_info=True,
                **arguments,
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{folder}: the model does not fit on {device}: use one with fewer parameters, bf16 instead of fp32, or "
            f"free the device ({error})"
        ) from error
    except Exception as error:  # whatever a stranger's config.json provokes inside transformers
        raise ModelError(
            f"{folder}: transformers cannot load it as a causal language model: {_one_line(error)}"
        ) from error
    model, problems = loaded
    return model, problems


def _check_finite(model: Any, folder: Path) -> None:
    """Raises ModelError naming the first weight that holds NaN or infinity.

    A sum is not finite where an element is not, and reads each weight once without a copy; the elements are looked at
    only if it is not finite, since a sum of huge finite numbers may overflow.
    """
    import torch

    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if not weight.is_floating_point() or bool(weight.sum(dtype=torch.float32).isfinite()):
                continue
            bad = int((~weight.isfinite()).sum())
            if bad:
                raise ModelError(
                    f"{folder}: the weight {name} holds {bad} values that are NaN or infinite, of {weight.numel()}: "
                    "the file is damaged or the model diverged in training: use an earlier checkpoint or copy it again"
                )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """What transformers warns of while loading is checked and raised here, so it is not printed as well."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
