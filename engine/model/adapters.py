"""One base model and the roles that are played on it.

With LoRA, policy, reference and reward model are adapters over one frozen base: a role is a name of an adapter, or the
base alone. With full fine-tuning the policy is the base itself and the reference is a frozen copy of how it began.

Invariant: which parameters train is fixed at construction and never changed again. peft's own `set_adapter` and
`disable_adapter` change `requires_grad` and so lose gradients silently (peft 0.21); `RoleModel.use` only moves the
pointer to the active adapter on each tuner layer, and puts it back.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.data.packing import PackedBatch
from engine.errors import ConfigError, ModelError
from engine.model.activation_checkpointing import checkpointed_layers
from engine.model.arithmetic import Arithmetic, of_batch
from engine.model.half_products import are_emulated
from engine.model.log_probs import TokenScores, hidden_states, token_scores
from engine.model.lora_layers import (
    ALL_LINEAR,
    add_fresh_adapter,
    add_saved_adapter,
    fresh_lora_config,
    load_adapter_weights,
    merge_adapter,
    read_lora_config,
    with_adapter,
)
from engine.model.merged_weights import merged_weights
from engine.model.own_rows import hidden_states_in_own_rows
from engine.model.row_sharing import RowSharing

if TYPE_CHECKING:
    from engine.model.sampler import Sampler

POLICY = "policy"
REFERENCE = "reference"
REWARD = "reward"
VALUE = "value"


def reward_role(number: int) -> str:
    """The role of a run's reward model over its base, numbered from 0."""
    return REWARD if number == 0 else f"{REWARD}_{number + 1}"


class RoleModel:
    """A causal language model with named roles, one of which may be trained."""

    def __init__(self, model: Any, *, peft_model: Any | None, trained: str, adapters: dict[str, str | None]) -> None:
        """`adapters` maps each role to the adapter that plays it, None for the base alone."""
        self.model = model
        self.peft_model = peft_model
        self.trained = trained
        self._adapters = adapters
        self._frozen_copy: Any | None = None
        self.rows = RowSharing(shared=True)
        """Whether documents lie in one row; where they may not, each gets its own."""
        self.autocast: torch.dtype | None = None
        """Precision of the forward pass where it differs from that of the weights (full fine-tuning in bf16)."""
        self.share_prompts = True
        """Whether what documents of a batch share goes through the model once for all of them."""
        self.sampler: Sampler | None = None
        """Who answers prompts as the policy where the engine does not."""
        self.merged_sampling = True
        """Whether completions are sampled from copies of the weights with the adapter folded in."""
        self.checkpointing = False
        """Whether the activations inside decoder layers are worked again in the backward pass, and not kept."""
        self.work: Arithmetic | None = None
        """Of the passes with a gradient since it was set; None where nobody wants to know."""
        self._layers = _tuner_layers(model) if peft_model is not None else []
        self._dropouts = [layer.lora_dropout[trained] for layer in self._layers if trained in layer.lora_dropout]
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._value_weights = {name: p for name, p in learning.items() if _is_of_adapter(name, VALUE)}
        self._trainable = {name: p for name, p in learning.items() if name not in self._value_weights}

    @property
    def is_lora(self) -> bool:
        """True where the trained weights are an adapter."""
        return self.peft_model is not None

    @property
    def hidden_size(self) -> int:
        """H, the width of the hidden states."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    @property
    def prompts_shared(self) -> bool:
        """Whether a pair's prompt goes through the model once for both answers."""
        return self.share_prompts and self.rows.shared

    @property
    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters of the trained role, by name: the same set for the life of the object."""
        return self._trainable

    @property
    def value_weights(self) -> dict[str, torch.nn.Parameter]:
        """The parameters of the value's own adapter, which train beside the policy's; empty where it has none."""
        return self._value_weights

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

    @contextmanager
    def speaking(self, role: str) -> Iterator[Any]:
        """The model as `role`, to sample from: see `merged_weights`."""
        folded = self.is_lora and self.merged_sampling
        with self.use(role) as model, merged_weights(model) if folded else nullcontext():
            yield model

    def hidden(self, batch: PackedBatch, role: str, rows_R: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states (T, H) of a packed batch, as `role`; with `rows_R` of those rows alone, (R, H)."""
        self._drop_where_trained()
        self._count(batch, 0)
        with self.use(role) as model, self._precision(batch):
            return self._hidden_states(model, batch, role, rows_R)

    def scores(
        self,
        batch: PackedBatch,
        role: str,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        vocabulary_mean: bool = False,
    ) -> tuple[TokenScores, torch.Tensor]:
        """Per-target scores and the hidden states (T, H) they came from, as `role`."""
        self._drop_where_trained()
        self._count(batch, len(batch.rows_N))
        with self.use(role) as model, self._precision(batch):
            hidden_TH = self._hidden_states(model, batch, role)
            scores = token_scores(
                model, hidden_TH, batch, temperature=temperature, entropy=entropy, vocabulary_mean=vocabulary_mean
            )
            return scores, hidden_TH

    def _hidden_states(
        self, model: Any, batch: PackedBatch, role: str, rows_R: torch.Tensor | None = None
    ) -> torch.Tensor:
        if not self.rows.shared:
            hidden_TH = hidden_states_in_own_rows(model, batch)
            return hidden_TH if rows_R is None else hidden_TH.index_select(0, rows_R)
        if not (self.checkpointing and torch.is_grad_enabled()):
            return hidden_states(model, batch, share=self.share_prompts, rows_R=rows_R)
        with checkpointed_layers(model, partial(self._as_trained, role)):
            return hidden_states(model, batch, share=self.share_prompts, rows_R=rows_R)

    @contextmanager
    def _as_trained(self, role: str) -> Iterator[None]:
        """The state of a forward pass as `role` that wants a gradient."""
        self._drop_where_trained()
        with self.use(role):
            yield

    def _count(self, batch: PackedBatch, scored: int) -> None:
        if self.work is not None and torch.is_grad_enabled():
            self.work += of_batch(batch, scored)

    def _drop_where_trained(self) -> None:
        """Dropout in the trained adapter where a gradient is wanted, and nowhere else: held-out figures, references
        and rollouts are of the whole model, and a base that brings dropout of its own is trained without."""
        for layer in self._dropouts:
            layer.train(torch.is_grad_enabled())

    def _precision(self, batch: PackedBatch) -> AbstractContextManager[Any]:
        on_cpu = batch.ids_T.device.type == "cpu"
        if self.autocast is None or (on_cpu and are_emulated(self.autocast)):
            return nullcontext()  # the weights are in fp32, and so are products that would be emulated
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
    rslora: bool = False,
    dora: bool = False,
    targets: str = ALL_LINEAR,
    seed: int = 1,
    reward_adapters: Sequence[Path] = (),
    value_adapter: bool = False,
) -> RoleModel:
    """Give `model` its roles.

    `start_adapter` is the adapter the run starts from (an SFT run's LoRA): it is copied into the trained adapter, whose
    shape is then the start's and not what the arguments say, and kept, frozen, as the reference; without one the
    reference is the base alone. Each of `reward_adapters` adds a frozen role (`reward_role`), and `value_adapter` the
    role "value", which trains: it begins as a copy of the first of them, else of the start, else fresh. `kind="full"`
    trains the base itself (a start adapter is merged into it first); "lora" and "qlora" differ in how the base was
    loaded and not here.
    """
    torch.manual_seed(seed)
    if kind == "full":
        if reward_adapters:
            raise ConfigError(
                '[adapter] kind = "full": a reward model that shares the base needs an adapter for the policy. '
                'Set adapter.kind = "lora"'
            )
        merged = merge_adapter(model, start_adapter) if start_adapter is not None else model
        merged.requires_grad_(True)
        return RoleModel(merged, peft_model=None, trained=trained, adapters={trained: None})
    if start_adapter is not None:
        config = read_lora_config(start_adapter, dropout=dropout)
    else:
        config = fresh_lora_config(
            model, rank=rank, alpha=alpha, dropout=dropout, rslora=rslora, dora=dora, targets=targets
        )
    peft_model = with_adapter(model, config, trained)
    roles: dict[str, str | None] = {trained: trained, REFERENCE: None}
    if start_adapter is not None:
        load_adapter_weights(peft_model, start_adapter, trained)
        add_saved_adapter(peft_model, start_adapter, REFERENCE)
        roles[REFERENCE] = REFERENCE
    for number, adapter in enumerate(reward_adapters):
        roles[reward_role(number)] = role = reward_role(number)
        add_saved_adapter(peft_model, adapter, role)
    if value_adapter:
        _add_value_adapter(peft_model, next(iter(reward_adapters), start_adapter), config)
        roles[VALUE] = VALUE
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_of_adapter(name, trained) or (VALUE in roles and _is_of_adapter(name, VALUE)))
    _use_own_layers(model)
    return RoleModel(model, peft_model=peft_model, trained=trained, adapters=roles)


def _use_own_layers(model: Any) -> None:
    """Work what is frozen, with its adapters, by the engine's own functions where they serve."""
    # Imported here: they load peft, which a run of full fine-tuning does without.
    from engine.model.gated_layers import use_gated_blocks
    from engine.model.lora_product import use_lora_products

    use_lora_products(model)
    use_gated_blocks(model)


def _add_value_adapter(peft_model: Any, begun: Path | None, config: Any) -> None:
    """The value's adapter: a copy of `begun`, or a fresh one of the shape of `config`."""
    if begun is not None:
        add_saved_adapter(peft_model, begun, VALUE)
    else:
        add_fresh_adapter(peft_model, config, VALUE)


def _is_of_adapter(name: str, adapter: str) -> bool:
    """Whether a parameter is a LoRA weight of `adapter`; a layer of the base may itself be called "value"."""
    return re.search(rf"\.lora_\w+\.{adapter}(\.|$)", name) is not None


def _tuner_layers(model: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
