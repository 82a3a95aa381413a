"""One base model and the roles that are played on it.

With LoRA, policy, reference and reward model are adapters over one frozen base: a role is a name of an adapter, or the
base alone. With full fine-tuning the policy is the base itself and the reference is a frozen copy of how it began.

Invariant: which parameters train is fixed at construction and never changed again. peft's own `set_adapter` and
`disable_adapter` change `requires_grad` and so lose gradients silently (peft 0.21); `RoleModel.use` only moves the
pointer to the active adapter on each tuner layer, and puts it back.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from engine.data.packing import PackedBatch
from engine.errors import ConfigError, ModelError
from engine.model.log_probs import TokenScores, hidden_states, token_scores

POLICY = "policy"
REFERENCE = "reference"
REWARD = "reward"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class RoleModel:
    """A causal language model with named roles, one of which may be trained."""

    def __init__(self, model: Any, *, peft_model: Any | None, trained: str, adapters: dict[str, str | None]) -> None:
        """`adapters` maps each role to the adapter that plays it, None for the base alone."""
        self.model = model
        self.peft_model = peft_model
        self.trained = trained
        self._adapters = adapters
        self._frozen_copy: Any | None = None
        self.autocast: torch.dtype | None = None
        """Precision of the forward pass where it differs from that of the weights (full fine-tuning in bf16)."""
        self._layers = _tuner_layers(model) if peft_model is not None else []
        self._trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}

    @property
    def is_lora(self) -> bool:
        """True where the trained weights are an adapter."""
        return self.peft_model is not None

    @property
    def hidden_size(self) -> int:
        """H, the width of the hidden states."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    @property
    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that train, by name: the same set for the life of the object."""
        return self._trainable

    def keep_frozen_reference(self) -> None:
        """Full fine-tuning: keep a frozen copy of the weights as they are now, to be the reference."""
        if self.is_lora or self._frozen_copy is not None:
            return
        self._frozen_copy = copy.deepcopy(self.model).requires_grad_(False)

    @contextmanager
    def use(self, role: str) -> Iterator[Any]:
        """The model as `role`. No parameter's `requires_grad` changes, so a pending backward pass stays whole."""
        if role == REFERENCE and not self.is_lora:
            if self._frozen_copy is None:
                raise ModelError("no frozen reference was kept before training: call keep_frozen_reference first")
            yield self._frozen_copy
            return
        if role not in self._adapters:
            raise ModelError(f"no role {role!r}: this model has {', '.join(sorted(self._adapters))}")
        adapter = self._adapters[role]
        before = [(layer._active_adapter, layer._disable_adapters) for layer in self._layers]
        for layer in self._layers:
            layer._disable_adapters = adapter is None
            if adapter is not None:
                layer._active_adapter = [adapter]
        try:
            yield self.model
        finally:
            for layer, (active, disabled) in zip(self._layers, before, strict=True):
                layer._active_adapter, layer._disable_adapters = active, disabled

    def hidden(self, batch: PackedBatch, role: str) -> torch.Tensor:
        """Hidden states (T, H) of a packed batch, as `role`."""
        with self.use(role) as model, self._precision(batch):
            return hidden_states(model, batch)

    def scores(
        self, batch: PackedBatch, role: str, *, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[TokenScores, torch.Tensor]:
        """Per-target scores and the hidden states (T, H) they came from, as `role`."""
        with self.use(role) as model, self._precision(batch):
            hidden_TH = hidden_states(model, batch)
            return token_scores(model, hidden_TH, batch, temperature=temperature, entropy=entropy), hidden_TH

    def _precision(self, batch: PackedBatch) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        precision: AbstractContextManager[Any] = torch.autocast(batch.ids_T.device.type, dtype=self.autocast)
        return precision


def build_roles(
    model: Any,
    *,
    kind: str,
    trained: str,
    start_adapter: Path | None,
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    seed: int = 1,
    reward_adapter: Path | None = None,
) -> RoleModel:
    """Give `model` its roles.

    `start_adapter` is the adapter the run starts from (an SFT run's LoRA): it is copied into the trained adapter and
    kept, frozen, as the reference; without one the reference is the base alone. `reward_adapter` adds the frozen role
    "reward". `kind="full"` trains the base itself (a start adapter is merged into it first).
    """
    torch.manual_seed(seed)
    if kind == "full":
        if reward_adapter is not None:
            raise ConfigError(
                '[adapter] kind = "full": a reward model that shares the base needs an adapter for the policy. '
                'Set adapter.kind = "lora"'
            )
        merged = merge_adapter(model, start_adapter) if start_adapter is not None else model
        merged.requires_grad_(True)
        return RoleModel(merged, peft_model=None, trained=trained, adapters={trained: None})
    from peft import LoraConfig

    if start_adapter is not None:
        config = _read_lora_config(start_adapter)
    else:
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    peft_model = _with_adapter(model, config, trained)
    roles: dict[str, str | None] = {trained: trained, REFERENCE: None}
    if start_adapter is not None:
        _load_weights(peft_model, start_adapter, trained)
        peft_model.add_adapter(REFERENCE, _read_lora_config(start_adapter))
        _load_weights(peft_model, start_adapter, REFERENCE)
        roles[REFERENCE] = REFERENCE
    if reward_adapter is not None:
        peft_model.add_adapter(REWARD, _read_lora_config(reward_adapter))
        _load_weights(peft_model, reward_adapter, REWARD)
        roles[REWARD] = REWARD
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{trained}." in name and ".lora_" in name)
    return RoleModel(model, peft_model=peft_model, trained=trained, adapters=roles)


def merge_adapter(model: Any, adapter: Path) -> Any:
    """`model` with the adapter folded into its weights, without tuner layers."""
    peft_model = _with_adapter(model, _read_lora_config(adapter), POLICY)
    _load_weights(peft_model, adapter, POLICY)
    return peft_model.merge_and_unload()


def _with_adapter(model: Any, config: Any, name: str) -> Any:
    """A PeftModel over `model` with one fresh adapter."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for a property under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, config, adapter_name=name)


def _read_lora_config(folder: Path) -> Any:
    """The LoRA shape of a saved adapter, without what only its task needs (a score head is ours, not peft's)."""
    from peft import LoraConfig

    saved = LoraConfig.from_pretrained(str(folder))
    if not isinstance(saved, LoraConfig):
        raise ModelError(f"{folder / ADAPTER_CONFIG}: an adapter of type {saved.peft_type}; only LoRA is supported")
    targets = saved.target_modules
    saved.target_modules = set(targets) - {"score"} if not isinstance(targets, str) else targets
    saved.modules_to_save = None
    saved.task_type = None
    saved.inference_mode = False
    return saved


def _load_weights(peft_model: Any, folder: Path, adapter: str) -> None:
    """Copy a saved adapter's LoRA matrices into `adapter`. Raises ModelError where they do not fit this base."""
    from peft import set_peft_model_state_dict

    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise ModelError(f"{folder}: no {ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG}: the adapter is not whole")
    weights = {name: value for name, value in load_file(file).items() if ".lora_" in name}
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


def _tuner_layers(model: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
