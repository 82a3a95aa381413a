"""Writing trained weights in the layout that peft and transformers load.

- LoRA policy: `adapter_model.safetensors` + `adapter_config.json` (peft).
- LoRA reward model: the same with task type SEQ_CLS and the `score` head among its weights, beside our own
  `reward_head.safetensors`.
- Full: a transformers folder; a reward model is saved as the architecture's `…ForSequenceClassification`.

The tokenizer is written beside the weights with the chat template that was used, so a checkpoint folder is a whole
model and renders as trained. Reading back what was written
(for a resume) is here too, so that the two cannot drift apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engine.data.chat import ChatTokenizer
from engine.data.tokenizer_saving import copy_tokenizer
from engine.errors import CheckpointError
from engine.model.adapters import RoleModel
from engine.model.heads import ScalarHead, ScoreScale, save_reward_head
from engine.model.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def save_weights(
    roles: RoleModel,
    folder: Path,
    *,
    base_folder: Path,
    reward_head: ScalarHead | None = None,
    reward_scale: ScoreScale | None = None,
    tokenizer: ChatTokenizer | None = None,
) -> None:
    """Write the trained role of `roles` (and its reward head) into `folder`, which exists and is empty.

    The tokenizer is the one that was trained with; None copies the base's.
    """
    if roles.is_lora:
        _save_adapter(roles, folder, base_folder, reward_head)
    else:
        _save_full(roles, folder, reward_head)
    if reward_head is not None:
        save_reward_head(reward_head, folder, reward_scale or ScoreScale(0.0, 1.0))
    if tokenizer is None:
        copy_tokenizer(base_folder, folder)
    else:
        tokenizer.save(folder)


def load_trained_weights(roles: RoleModel, folder: Path) -> None:
    """Put the weights that `save_weights` wrote back into the trained role, bit for bit."""
    if roles.is_lora:
        saved = load_file(folder / ADAPTER_WEIGHTS)
        wanted = _adapter_state(roles)
    else:
        saved = {}
        for file in sorted(folder.glob("model*.safetensors")):
            saved.update(load_file(file))
        wanted = dict(roles.model.named_parameters())
        saved.pop("score.weight", None)
        wanted = {name: value for name, value in wanted.items() if name in saved or not _is_tied(roles.model, name)}
    missing = [name for name in wanted if name not in saved]
    if missing:
        raise CheckpointError(f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(saved[name])


def _is_tied(model: Any, name: str) -> bool:
    return bool(getattr(model.config, "tie_word_embeddings", False)) and name.startswith("lm_head.")


def _adapter_state(roles: RoleModel) -> dict[str, torch.Tensor]:
    """The trained adapter's live tensors under the names that peft saves them by."""
    marker = f".{roles.trained}."
    prefix = "base_model.model."
    return {prefix + name.replace(marker, "."): p for name, p in roles.trainable.items() if marker in name}


def _save_adapter(roles: RoleModel, folder: Path, base_folder: Path, reward_head: ScalarHead | None) -> None:
    assert roles.peft_model is not None
    config = roles.peft_model.peft_config[roles.trained]
    written = json.loads(json.dumps(config.to_dict(), default=_plain))
    written["base_model_name_or_path"] = str(base_folder)
    written["inference_mode"] = True
    written["task_type"] = "CAUSAL_LM" if reward_head is None else "SEQ_CLS"
    written["modules_to_save"] = None if reward_head is None else ["score"]
    state = {name: p.detach().cpu().contiguous() for name, p in _adapter_state(roles).items()}
    if reward_head is not None:
        state["base_model.model.score.weight"] = reward_head.linear.weight.detach().cpu().contiguous()
    save_file(state, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _save_full(roles: RoleModel, folder: Path, reward_head: ScalarHead | None) -> None:
    model = roles.model
    model.save_pretrained(str(folder), safe_serialization=True)
    if reward_head is None:
        return
    files = sorted(folder.glob("model*.safetensors"))
    if len(files) != 1:
        raise CheckpointError(f"{folder}: a full reward model of more than one weight file is not supported; use LoRA")
    state = {name: value for name, value in load_file(files[0]).items() if not name.startswith("lm_head.")}
    state["score.weight"] = reward_head.linear.weight.detach().cpu().to(model.dtype).contiguous()
    save_file(state, files[0], metadata={"format": "pt"})
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    config["architectures"] = [
        name.replace("ForCausalLM", "ForSequenceClassification") for name in config["architectures"]
    ]
    config["num_labels"] = 1
    config["id2label"] = {"0": "reward"}
    config["label2id"] = {"reward": 0}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", str(value))
