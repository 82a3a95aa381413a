"""What a launch settles about the weights that train: whether they can here, and the shape of an adapter that goes on.

Owns the checks of [adapter] that need the machine or the model's files. Invariant: what run.toml says of the adapter is
what trains, also where the run goes on with an adapter that was made elsewhere. Reads JSON and the headers of
safetensors files alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.model.four_bit import four_bit_fault
from engine.model.model_files import read_adapter_config, tensor_infos, weight_files
from engine.run.config import AdapterConfig
from engine.run.config_layers import Resolved
from workbench.errors import UsageError
from workbench.model_names import ResolvedModel

ALL_LINEAR = "all-linear"
_SHAPE = {"r": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora"}
"""Key of [adapter] -> key of peft's adapter_config.json."""


def check_weights(early: Resolved, device: str, model: ResolvedModel) -> None:
    """Raises UsageError for weights that cannot train on `device` or layers that `model` does not have."""
    adapter = early.config.adapter
    if adapter.kind == "qlora" and (fault := four_bit_fault(device)):
        raise UsageError(fault)
    if adapter.kind == "full" or model.adapter is not None or adapter.targets == ALL_LINEAR:
        return
    there = matrix_names(model.path)
    unknown = [name for name in adapter.targets.split(",") if name.strip() not in there]
    if unknown:
        missing = unknown[0].strip() or "without a name"
        raise UsageError(
            f'[adapter] targets = "{adapter.targets}": {model.source} has no layer {missing}. '
            f"It has: {', '.join(sorted(there))}. Name some of them, separated by commas, or set {ALL_LINEAR}"
        )


def matrix_names(folder: Path) -> set[str]:
    """Last parts of the names of the matrices inside a model's layers: "q_proj", …; what lies outside them (embeddings,
    the head) is left out."""
    names = set()
    for file in weight_files(folder):
        for name, info in tensor_infos(file).items():
            module, _, last = name.rpartition(".")
            if last == "weight" and len(info.shape) == 2 and any(part.isdigit() for part in module.split(".")):
                names.add(module.rpartition(".")[2])
    return names


def inherited_adapter(early: Resolved, model: ResolvedModel) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What [adapter] becomes where a run goes on with an adapter: that adapter's own shape, and a note for each
    setting of the person's that it overrules."""
    if model.adapter is None or early.config.adapter.kind == "full":
        return {}, ()
    saved = read_adapter_config(model.adapter, model.path)
    shape: dict[str, Any] = {key: _plain(saved.get(theirs), key) for key, theirs in _SHAPE.items()}
    shape["targets"] = _targets(saved)
    overruled = [
        f"adapter.{key} = {getattr(early.config.adapter, key)} is not used"
        for key, value in shape.items()
        if early.origins.get(f"adapter.{key}", "default") != "default" and getattr(early.config.adapter, key) != value
    ]
    if not overruled:
        return shape, ()
    goes_on = f"the run goes on with the adapter of {model.source} ({adapter_words(AdapterConfig(**shape))})"
    return shape, (f"{'; '.join(overruled)}: {goes_on}",)


def _plain(value: Any, key: str) -> Any:
    if key == "alpha":
        return float(value)
    if key == "r":
        return int(value)
    return bool(value)


def _targets(saved: Mapping[str, Any]) -> str:
    """The last parts of the names that peft wrote, separated by commas; a pattern stays as it is."""
    written = saved.get("target_modules")
    if isinstance(written, str):
        return written
    if not isinstance(written, list) or not written:
        raise ModelError(f"adapter_config.json: target_modules = {written}: expected names of layers")
    return ",".join(sorted({str(name).rpartition(".")[2] for name in written} - {"score"}))


def adapter_words(adapter: AdapterConfig) -> str:
    """Which weights train, in words: "LoRA, rank 16", "rank-stabilised DoRA, rank 8, on q_proj", "all weights"."""
    if adapter.kind == "full":
        return "all weights"
    kind = ("Q" if adapter.kind == "qlora" else "") + ("DoRA" if adapter.dora else "LoRA")
    words = f"{'rank-stabilised ' if adapter.rslora else ''}{kind}, rank {adapter.r}"
    return (
        words if adapter.targets == ALL_LINEAR or adapter.targets.count(",") > 3 else f"{words}, on {adapter.targets}"
    )
