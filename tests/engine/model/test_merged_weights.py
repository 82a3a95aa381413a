"""Sampling from folded copies: the same logits to rounding, nothing of the model changed, only what is plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.model.adapters import POLICY, REFERENCE, RoleModel, build_roles
from engine.model.lora_product import LoraLinear
from engine.model.merged_weights import merged_weights
from engine.model.sampler import sample

IDS = torch.tensor([[5, 9, 40, 77, 3, 200]])


def with_adapter(model: Any, **shape: Any) -> RoleModel:
    """Roles over `model` whose adapter is far from nothing."""
    roles = build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=4, **shape)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    return roles


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def test_every_plain_layer_is_one_product_with_the_same_logits(tiny_model: Any) -> None:
    roles = with_adapter(tiny_model, rslora=True)
    with roles.use(REFERENCE) as model:
        base = logits(model)
    with roles.use(POLICY) as model:
        apart = logits(model)
        with merged_weights(model) as folded:
            together = logits(model)
    assert folded == 14, "seven layers in each of two blocks"
    assert (apart - base).abs().max() > 0.01, "the adapter does something"
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_nothing_is_left_behind_even_where_sampling_fails(tiny_model: Any) -> None:
    roles = with_adapter(tiny_model)
    before = {name: p.detach().clone() for name, p in roles.model.named_parameters()}
    with roles.use(POLICY) as model:
        apart = logits(model)
    with pytest.raises(RuntimeError, match="stop here"), roles.speaking(POLICY):
        raise RuntimeError("stop here")
    assert all(torch.equal(p, before[name]) for name, p in roles.model.named_parameters())
    with roles.use(POLICY) as model:
        assert torch.equal(logits(model), apart)
    with roles.speaking(POLICY) as model:
        assert not torch.equal(logits(model), apart), "folded sums are rounded otherwise"


def test_what_is_not_plain_stays_apart(tiny_model: Any) -> None:
    roles = with_adapter(tiny_model, dora=True)
    with roles.use(POLICY) as model, merged_weights(model) as folded:
        assert folded == 0


def test_the_base_alone_has_nothing_to_fold(tiny_model: Any) -> None:
    roles = with_adapter(tiny_model)
    with roles.use(REFERENCE) as model:
        apart = logits(model)
        with merged_weights(model) as folded:
            assert folded == 0
            assert torch.equal(logits(model), apart)


def test_dropout_of_a_model_in_training_does_not_keep_layers_apart(tiny_model: Any) -> None:
    roles = with_adapter(tiny_model, dropout=0.5)
    roles.model.train()
    with roles.use(POLICY) as model, merged_weights(model) as folded:
        assert folded == 14


def test_a_bf16_base_is_rounded_once(tiny_model: Any) -> None:
    roles = with_adapter(tiny_model.to(torch.bfloat16))
    layer = next(module for module in roles.model.modules() if isinstance(module, LoraLinear))
    a, b = layer.lora_A[POLICY].weight, layer.lora_B[POLICY].weight
    assert a.dtype == torch.float32
    whole = layer.base_layer.weight.double() + layer.scaling[POLICY] * (b.double() @ a.double())
    with roles.speaking(POLICY):
        assert layer.merged_OI is not None
        assert layer.merged_OI.dtype == torch.bfloat16
        assert ((layer.merged_OI.double() - whole).abs() <= whole.abs() * 2**-8 * 1.01).all(), "half a step of bf16"


def test_sampled_from_either_way(tiny_model: Any) -> None:
    """The same draws, log-probs to rounding; `merged_sampling` decides which way."""
    roles = with_adapter(tiny_model)
    draw: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "stop_ids": (), "pad_id": 3, "seeds": [1, 2]}
    calls = count_products(roles)
    found = []
    for merged in (True, False):
        roles.merged_sampling = merged
        calls.clear()
        with roles.speaking(POLICY) as model:
            found.append(sample(model, [[5, 6, 7], [8]], **draw))
        assert all(was_merged == merged for was_merged in calls)
    assert [c.ids for c in found[0]] == [c.ids for c in found[1]]
    for a, b in zip(*found, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-5)


def count_products(roles: RoleModel) -> list[bool]:
    """A list that grows by whether each adapted layer that runs is folded."""
    calls: list[bool] = []

    def note(layer: Any) -> Callable[..., None]:
        return lambda *_: calls.append(layer.merged_OI is not None)

    for module in roles.model.modules():
        if isinstance(module, LoraLinear):
            module.register_forward_hook(note(module))
    return calls
