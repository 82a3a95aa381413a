"""What a model folder's files say before anything is loaded: its config, its weight files, the shapes in them.

Only JSON and the headers of safetensors files are read, so this is torch-free and takes milliseconds for any size.
Pickled weights (.bin, .pt, .pth, .pkl) are refused: reading one runs whatever it holds.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.tokenizer_files import largest_id
from engine.errors import ModelError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
HEADER_LIMIT_BYTES = 100_000_000
"""The limit that the safetensors format itself sets."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a safetensors file."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: "BF16", "F32", …"""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def check_model_folder(folder: Path) -> dict[str, Any]:
    """The folder's config.json, once everything that a run needs is seen to be there. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder: expected a model folder with config.json and safetensors weights")
    config = read_json(folder / CONFIG)
    for file in weight_files(folder):
        tensor_infos(file)
    rows = embedding_rows(config)
    if rows is not None and (top := largest_id(folder)) >= rows:
        raise ModelError(
            f"{folder}: tokenizer.json has ids up to {top}, but the model's embedding has {rows} rows (vocab_size in "
            "config.json): use the model's own tokenizer, or resize the embedding and save the model again"
        )
    return config


def embedding_rows(config: dict[str, Any]) -> int | None:
    """vocab_size of a config.json, also where it lies in the part about text; None where there is none."""
    inner = config.get("text_config")
    rows = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    return rows if isinstance(rows, int) else None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object that must be there. Raises ModelError."""
    if not file.is_file():
        raise ModelError(_no_config(file))
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error}): copy the file from the model again") from error
    if not isinstance(read, dict):
        raise ModelError(f"{file}: a {type(read).__name__}, where a JSON object was expected: copy the file again")
    return read


def _no_config(file: Path) -> str:
    folder = file.parent
    if file.name == CONFIG and (folder / ADAPTER_CONFIG).is_file():
        return (
            f"{folder}: an adapter, not a whole model: name the model that it was trained on, and give this as adapter"
        )
    ggufs = sorted(f.name for f in folder.glob("*.gguf"))
    if file.name == CONFIG and ggufs:
        return f"{folder}: no config.json, but {ggufs[0]}: name that file itself as the model"
    return f"{folder}: no {file.name}, so this is no model folder: expected config.json beside safetensors weights"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model, every one of them present. Raises ModelError."""
    single, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    if index.is_file() and not single.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names or not all(_is_plain_name(name) for name in names.values()):
            raise ModelError(f'{index}: "weight_map" is not from tensors to files: copy the file from the model again')
        files = [folder / name for name in sorted(set(names.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ModelError(
                f"{folder}: {len(missing)} of {len(files)} weight files are missing, the first is {missing[0]}: "
                "copy or download the model again"
            )
        return files
    if single.is_file():
        return [single]
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{folder}: its weights are pickled ({pickles[0]}), and reading a pickle runs what it holds: get the model "
            "as safetensors (most Hub repositories have it), or convert it on a machine where you trust the file"
        )
    raise ModelError(f"{folder}: no {WEIGHTS}: expected safetensors weights beside config.json")


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..")


def tensor_infos(file: Path) -> dict[str, TensorInfo]:
    """Name -> shape and dtype of every tensor, from the header alone. Raises ModelError where it is torn."""
    torn = f"{file}: not a whole safetensors file ({{}}): copy or download it again"
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length_bytes = opened.read(8)
            length = struct.unpack("<Q", length_bytes)[0] if len(length_bytes) == 8 else size
            if not 2 <= length <= min(size - 8, HEADER_LIMIT_BYTES):
                raise ModelError(torn.format("no header"))
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        infos = {name: TensorInfo(tuple(t["shape"]), str(t["dtype"])) for name, t in header.items()}
        end = max((t["data_offsets"][1] for t in header.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(torn.format(error)) from error
    if size < 8 + length + end:
        raise ModelError(torn.format(f"{size} of {8 + length + end} bytes"))
    return infos


def read_adapter_config(folder: Path, base_folder: Path | None = None) -> dict[str, Any]:
    """An adapter folder's adapter_config.json, checked: safetensors, LoRA, and made for the base if one is given.

    An adapter fits where each of its matrices that names a weight of the base has that weight's width and height;
    names of folders prove nothing, since models are moved and copied. Raises ModelError.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        pickled = " The pickled adapter_model.bin is not read." if (folder / "adapter_model.bin").is_file() else ""
        raise ModelError(f"{folder}: no {ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG}: save the adapter again.{pickled}")
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{folder}: an adapter of type {config.get('peft_type')}: only LORA is supported")
    if base_folder is not None:
        _check_shapes(file, base_folder, str(config.get("base_model_name_or_path") or "unnamed"))
    return config


def _check_shapes(file: Path, base_folder: Path, made_for: str) -> None:
    base = {name: info for weights in weight_files(base_folder) for name, info in tensor_infos(weights).items()}
    for name, info in tensor_infos(file).items():
        module, found, side = name.removeprefix("base_model.model.").partition(".lora_")
        weight = base.get(f"{module}.weight")
        if not found or weight is None or len(weight.shape) != 2 or len(info.shape) != 2:
            continue
        ours, theirs = (info.shape[1], weight.shape[1]) if side.startswith("A") else (info.shape[0], weight.shape[0])
        if side[0] in "AB" and ours != theirs:
            raise ModelError(
                f"{file.parent}: the adapter was made for another base model: {name} is {ours} wide, {module} of "
                f"{base_folder.name} is {theirs}. Use it with its own base ({made_for})"
            )
