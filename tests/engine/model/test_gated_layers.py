"""Layers worked in fewer passes: the layer's own values and gradients, and left alone where they are something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.data.packing import Document, pack
from engine.model import adapters, gated_layers, half_products
from engine.model.adapters import POLICY, REFERENCE, RoleModel, build_roles
from engine.model.gated_block import BehindAttention
from engine.model.gated_layers import GatedLayer
from tests.engine.model.architectures import tiny_decoder, write_adapter

DOCUMENTS = [
    Document.completion([10, 11, 12, 13], [14, 15, 16]),
    Document.completion([10, 11, 12, 13], [17, 18], shared=4),
    Document.completion([20, 21], [22, 23, 24]),
]
Change = Callable[[Any], None]


def roles_of(model: Any, *, served: bool, monkeypatch: pytest.MonkeyPatch, **options: Any) -> RoleModel:
    with monkeypatch.context() as patch:
        if not served:
            patch.setattr(gated_layers, "use_gated_blocks", lambda model: 0)
        roles = build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=2, alpha=3, **options)
    write_adapter(roles)
    return roles


def layers_of(roles: RoleModel) -> list[Any]:
    return list(roles.model.get_decoder().layers)


def outcome(roles: RoleModel, role: str = POLICY) -> list[torch.Tensor]:
    """Hidden states and all gradients of the adapters, in fp64."""
    hidden_TH = roles.hidden(pack(DOCUMENTS), role)
    if not hidden_TH.requires_grad:
        return [hidden_TH.double()]
    upstream = torch.randn(hidden_TH.shape, generator=torch.Generator().manual_seed(5))
    (hidden_TH.float() * upstream).sum().backward()
    gradients = [p.grad for p in roles.trainable.values() if p.grad is not None]
    for parameter in roles.trainable.values():
        parameter.grad = None
    return [t.detach().double() for t in (hidden_TH, *gradients)]


def distances(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("targets", ["all-linear", "q_proj,v_proj", "down_proj,gate_proj"])
def test_values_and_gradients_are_the_layers_own(targets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, ours = (
        roles_of(tiny_decoder("llama"), served=served, monkeypatch=monkeypatch, targets=targets)
        for served in (False, True)
    )
    assert all(isinstance(layer, GatedLayer) for layer in layers_of(ours))
    assert not any(isinstance(layer, GatedLayer) for layer in layers_of(own))
    for role in (POLICY, REFERENCE):
        expected, found = outcome(own, role), outcome(ours, role)
        assert len(expected) == (1 + len(own.trainable) if role == POLICY else 1)
        assert max(distances(found, expected)) < 5e-6


@pytest.mark.parametrize("emulated", [True, False])
def test_bf16_is_no_farther_from_fp32_than_the_layers_own(emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_products, "are_emulated", lambda dtype: emulated and dtype.itemsize == 2)
    exact = outcome(roles_of(tiny_decoder("llama").bfloat16().float(), served=False, monkeypatch=monkeypatch))
    own, ours = (
        distances(outcome(roles_of(tiny_decoder("llama").bfloat16(), served=served, monkeypatch=monkeypatch)), exact)
        for served in (False, True)
    )
    assert sum(ours) < 1.2 * sum(own)
    assert max(ours) < 1.5 * max(own)


def test_a_layer_that_counts_otherwise_keeps_its_own_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(model: Any) -> None:
        model.config.residual_multiplier = 0.5
        for layer in model.get_decoder().layers:
            layer.residual_multiplier = 0.5

    cases: list[tuple[str, Change, bool]] = [
        ("llama-tied", lambda model: None, True),
        ("granite", lambda model: None, True),
        ("granite", halved, False),
        ("mistral", lambda model: None, False),  # its window is told to attention by the layer
        ("qwen3", lambda model: None, False),  # norms of queries and keys
        ("gemma2", lambda model: None, False),
        ("phi3", lambda model: None, False),
        ("gpt2", lambda model: None, False),
    ]
    for name, change, served in cases:
        model = tiny_decoder(name)
        change(model)
        build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=2)
        assert any(isinstance(module, GatedLayer) for module in model.modules()) == served, name


def test_what_is_more_than_a_plain_adapter_goes_the_layers_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> torch.Tensor:
        raise AssertionError("served")

    roles = roles_of(tiny_decoder("llama"), served=True, monkeypatch=monkeypatch)
    before = roles.hidden(pack(DOCUMENTS), POLICY)
    monkeypatch.setattr(BehindAttention, "apply", never)
    with pytest.raises(AssertionError, match="served"):
        roles.hidden(pack(DOCUMENTS), POLICY)
    for options in ({"dropout": 0.1}, {"dora": True}):
        other = roles_of(tiny_decoder("llama"), served=True, monkeypatch=monkeypatch, **options)
        other.hidden(pack(DOCUMENTS), POLICY)
    roles.autocast = torch.bfloat16
    monkeypatch.setattr(adapters, "are_emulated", lambda dtype: False)
    roles.hidden(pack(DOCUMENTS), POLICY)
    roles.autocast = None
    # Cast elsewhere and back, the layers no longer hold rows of the common array.
    roles.model.double().float()
    assert torch.allclose(roles.hidden(pack(DOCUMENTS), POLICY), before, atol=1e-5)


def test_weights_lie_once_and_random_numbers_are_left_alone() -> None:
    model = tiny_decoder("llama")
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    found = gated_layers.use_gated_blocks(model.requires_grad_(False))
    assert found == len(model.model.layers)
    assert torch.equal(state, torch.get_rng_state())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name])
    attention = model.model.layers[0].self_attn
    bytes_of = {layer.weight.untyped_storage().data_ptr() for layer in (attention.q_proj, attention.v_proj)}
    assert len(bytes_of) == 1


@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize(("share", "checkpointing"), [(True, False), (False, False), (True, True)])
def test_rows_that_nobody_reads_are_left_out(
    name: str, share: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the last layer and their gradients, in the order asked for, one of them twice."""
    rows, worked = torch.tensor([11, 3, 6, 3]), []
    roles = roles_of(tiny_decoder(name), served=True, monkeypatch=monkeypatch)
    roles.share_prompts, roles.checkpointing = share, checkpointing
    layers_of(roles)[-1].post_attention_layernorm.register_forward_hook(lambda *_: worked.append("own"))
    upstream = torch.randn(len(rows), roles.hidden_size, generator=torch.Generator().manual_seed(5))

    def outcomes(hidden_RH: torch.Tensor) -> list[torch.Tensor]:
        (hidden_RH * upstream).sum().backward()
        gradients = [p.grad for p in roles.trainable.values() if p.grad is not None]
        for parameter in roles.trainable.values():
            parameter.grad = None
        return [t.detach() for t in (hidden_RH, *gradients)]

    expected = outcomes(roles.hidden(pack(DOCUMENTS), POLICY).index_select(0, rows))
    found = outcomes(roles.hidden(pack(DOCUMENTS), POLICY, rows))
    assert max(distances(found, expected)) < 5e-6
    last: Any = layers_of(roles)[-1]
    assert isinstance(last, GatedLayer) == (not worked) == (name == "llama")
    if name == "llama":
        lengths: list[int] = []
        behind = BehindAttention.apply

        def counted(x_TH: torch.Tensor, *rest: Any) -> Any:
            lengths.append(len(x_TH))
            return behind(x_TH, *rest)

        monkeypatch.setattr(BehindAttention, "apply", counted)
        roles.hidden(pack(DOCUMENTS), POLICY, rows)
        assert lengths == [14 if share else 18, len(rows)]
