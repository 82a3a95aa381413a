"""A sampled token goes through gated layers in columns, and draws what the layers' own forward pass draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.model import cpu_products, gated_decoding, gated_layers
from engine.model.adapters import POLICY, REFERENCE, RoleModel, build_roles
from engine.model.sampler import Completion, sample
from tests.engine.model.architectures import tiny_decoder, write_adapter

PROMPTS = [[10, 11, 12, 13, 14, 15, 16], [20, 21], [20, 21], [30, 31, 32, 33, 34]]
STEPS = 9


def roles_of(model: Any, **options: Any) -> RoleModel:
    """Roles over `model` whose adapter is far from nothing."""
    roles = build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=2, alpha=3, **options)
    write_adapter(roles)
    return roles


def drawn(roles: RoleModel, role: str = POLICY, stop_ids: tuple[int, ...] = ()) -> list[Completion]:
    with roles.speaking(role) as model:
        return sample(
            model, PROMPTS, max_new_tokens=STEPS, temperature=1.0, stop_ids=stop_ids, pad_id=3, seeds=[1, 2, 3, 4]
        )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of rows of each call of `decode`."""
    rows: list[int] = []
    decode = gated_layers.decode

    def counted(layer: Any, hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(hidden))
        return decode(layer, hidden, *rest)

    monkeypatch.setattr(gated_layers, "decode", counted)
    return rows


def with_biases(model: Any) -> Any:
    """Every product but the head with a bias that counts."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            draw = torch.Generator().manual_seed(len(name))
            module.bias = torch.nn.Parameter(torch.randn(module.out_features, generator=draw) * 0.3)
    return model


@pytest.mark.parametrize("role", [POLICY, REFERENCE])
@pytest.mark.parametrize("name", ["llama", "llama-tied", "with biases"])
def test_draws_as_the_layers_own_pass_does(
    name: str, role: str, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_biases(tiny_decoder("llama")) if name == "with biases" else tiny_decoder(name)
    roles = roles_of(model)
    drawn(roles, role)  # the first time the cache itself is tried
    del calls[:]
    found = drawn(roles, role)
    layers = model.config.num_hidden_layers
    assert calls == [len(PROMPTS)] * layers * (STEPS - 1), "one call a layer and token after the first"
    monkeypatch.setattr(gated_layers, "decodes", lambda *_: False)
    expected = drawn(roles, role)
    assert len(calls) == layers * (STEPS - 1)
    assert [c.ids for c in found] == [c.ids for c in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=2e-5)


def test_finished_rows_leave(calls: list[int]) -> None:
    roles = roles_of(tiny_decoder("llama"))
    stops = (drawn(roles)[1].ids[2],)
    del calls[:]
    found = drawn(roles, stop_ids=stops)
    assert any(len(c.ids) < STEPS for c in found)
    assert min(calls) < len(PROMPTS), "fewer rows once some have ended"
    assert sum(calls) == 2 * sum(len(c.ids) - 1 for c in found)


@pytest.mark.parametrize(
    ("name", "options"),
    [("llama", {"dora": True}), ("qwen3", {}), ("mistral", {})],
    ids=["DoRA has no single weight", "norms of queries and keys", "a window that the layer tells attention of"],
)
def test_what_is_more_keeps_its_own_pass(name: str, options: dict[str, Any], calls: list[int]) -> None:
    drawn(roles_of(tiny_decoder(name), **options))
    assert calls == []


def test_half_precision_keeps_its_own_pass(calls: list[int]) -> None:
    drawn(roles_of(tiny_decoder("llama").bfloat16()))
    assert calls == []


def test_many_rows_keep_their_own_pass_until_few_are_left(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    roles = roles_of(tiny_decoder("llama"))
    stops = (drawn(roles)[1].ids[2],)
    del calls[:]
    monkeypatch.setattr(gated_decoding, "MOST_ROWS", len(PROMPTS) - 1)
    found = drawn(roles, stop_ids=stops)
    assert calls
    assert max(calls) == len(PROMPTS) - 1
    monkeypatch.undo()
    assert [c.ids for c in found] == [c.ids for c in drawn(roles, stop_ids=stops)]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_the_head_works_in_columns_while_it_samples_and_is_left_as_it_was(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_products, "prefers_onednn", lambda: False)
    model = tiny_decoder(name)
    head = model.get_output_embeddings()
    x = torch.randn(3, 1, head.weight.shape[1], generator=torch.Generator().manual_seed(1))
    own = head(x)
    with torch.no_grad(), gated_decoding.thin_head(model):
        found = head(x)
        assert found.stride(0) == 1, "a column for each row"
        many = x.repeat(gated_decoding.MOST_ROWS, 1, 1)
        assert head(many).is_contiguous()
    torch.testing.assert_close(found, own)
    with pytest.raises(RuntimeError, match="stop here"), torch.no_grad(), gated_decoding.thin_head(model):
        raise RuntimeError("stop here")
    assert "forward" not in vars(head)
    with gated_decoding.thin_head(model):
        assert head(x).requires_grad, "with a gradient it is the head itself"


def test_a_head_with_a_bias_is_left_alone() -> None:
    model = tiny_decoder("phi")
    with gated_decoding.thin_head(model):
        assert "forward" not in vars(model.get_output_embeddings())


def test_an_adapter_that_is_not_folded_keeps_its_own_pass(calls: list[int]) -> None:
    roles = roles_of(tiny_decoder("llama"))
    roles.merged_sampling = False
    drawn(roles)
    assert calls == []


def test_a_group_is_folded_into_one_array_of_which_its_layers_hold_rows() -> None:
    roles = roles_of(tiny_decoder("llama"), targets="q_proj,v_proj")
    layer = roles.model.get_decoder().layers[0]
    group, attention = layer.gated_block.inwards, layer.self_attn
    with roles.speaking(POLICY):
        joined = group.whole_weight()
        q, k, v = joined.split([p.out_features for p in (attention.q_proj, attention.k_proj, attention.v_proj)])
        assert torch.equal(k, attention.k_proj.weight), "what has no adapter stays as it is"
        for part, own in ((q, attention.q_proj), (v, attention.v_proj)):
            assert own.merged_OI.data_ptr() == part.data_ptr()
            change = own.scaling[POLICY] * own.lora_B[POLICY].weight @ own.lora_A[POLICY].weight
            torch.testing.assert_close(part, own.base_layer.weight + change)
    assert group.merged_OI is None
    assert group.whole_weight() is None, "an adapter is at work, and nothing is folded"
    with roles.use(REFERENCE):
        assert group.whole_weight() is group.weight_OI
