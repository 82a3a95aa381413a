"""LoRA's scale, its variants and its targets, against the formulas of their papers and against peft's own loading."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.packing import Document, PackedBatch, pack
from engine.errors import ConfigError
from engine.model.adapters import POLICY, REFERENCE, RoleModel, build_roles
from engine.model.lora_layers import merge_adapter
from engine.model.saving import save_weights
from tests.engine.model.architectures import tiny_decoder
from tests.engine.model.test_adapters import fresh, shake

IDS = torch.tensor([[10, 11, 12, 13, 14]])
LAYER = "model.layers.1.mlp.down_proj"


@pytest.fixture
def batch() -> PackedBatch:
    return pack([Document.completion([10, 11, 12], [13, 14]), Document.completion([20, 21], [22])])


def roles_on(model: Any, **options: Any) -> RoleModel:
    return build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=4, alpha=6, **options)


def parts_of(roles: RoleModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """W, A and B of one layer."""
    layer = roles.model.get_submodule(LAYER)
    return layer.base_layer.weight.detach(), *(x[POLICY].weight.detach() for x in (layer.lora_A, layer.lora_B))


@pytest.mark.parametrize(("rslora", "scale"), [(False, 6 / 4), (True, 6 / math.sqrt(4))])
def test_the_scale_is_alpha_over_r_or_over_its_root(
    tiny_model: Any, tiny_model_folder: Path, tmp_path: Path, rslora: bool, scale: float
) -> None:
    roles = roles_on(tiny_model, rslora=rslora)
    shake(roles)
    save_weights(roles, tmp_path, base_folder=tiny_model_folder)
    weight, a, b = parts_of(roles)
    merged = merge_adapter(fresh(tiny_model_folder), tmp_path).get_submodule(LAYER).weight
    assert torch.allclose(merged, weight + scale * b @ a, atol=1e-6)


def test_dora_sets_each_row_to_its_trained_length(
    tiny_model: Any, tiny_model_folder: Path, tmp_path: Path, batch: PackedBatch
) -> None:
    roles = roles_on(tiny_model, dora=True)
    before = roles.scores(batch, REFERENCE)[0].log_probs_N
    assert torch.allclose(roles.scores(batch, POLICY)[0].log_probs_N, before, atol=1e-5)
    shake(roles)
    save_weights(roles, tmp_path, base_folder=tiny_model_folder)
    weight, a, b = parts_of(roles)
    direction = weight + 6 / 4 * b @ a
    length = roles.model.get_submodule(LAYER).lora_magnitude_vector[POLICY].weight.detach()
    merged = merge_adapter(fresh(tiny_model_folder), tmp_path).get_submodule(LAYER).weight
    expected = direction * (length / direction.norm(dim=1)).unsqueeze(1)
    assert torch.allclose(merged, expected, atol=1e-5)
    roles.scores(batch, POLICY)[0].log_probs_N.sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in roles.trainable.values())
    assert any("magnitude" in name for name in roles.trainable)


@pytest.mark.parametrize("shape", [{"rslora": True}, {"dora": True}, {"rslora": True, "dora": True, "dropout": 0.5}])
def test_variants_come_back_in_peft_and_as_a_start(
    tiny_model: Any, tiny_model_folder: Path, tmp_path: Path, batch: PackedBatch, shape: dict[str, Any]
) -> None:
    from peft import PeftModel

    roles = roles_on(tiny_model, **shape)
    shake(roles)
    save_weights(roles, tmp_path, base_folder=tiny_model_folder)
    with roles.use(POLICY) as model:
        expected = model.eval()(IDS).logits
    loaded = PeftModel.from_pretrained(fresh(tiny_model_folder), str(tmp_path)).eval()
    assert torch.allclose(loaded(IDS).logits, expected, atol=1e-5)
    # The arguments of the second run do not undo the shape of the adapter that it goes on with.
    second = build_roles(fresh(tiny_model_folder), kind="lora", trained=POLICY, start_adapter=tmp_path, rank=2, alpha=1)
    for role in (POLICY, REFERENCE):
        assert torch.equal(second.scores(batch, role)[0].log_probs_N, roles.scores(batch, POLICY)[0].log_probs_N)
    second.model.train()
    reference = second.scores(batch, REFERENCE)[0].log_probs_N
    assert torch.equal(reference, roles.scores(batch, POLICY)[0].log_probs_N), "a frozen adapter drops nothing"


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_stay_in_fp32_over_a_base_in_bf16(tiny_model: Any, batch: PackedBatch, dora: bool) -> None:
    roles = roles_on(tiny_model.to(torch.bfloat16), dora=dora)
    assert {p.dtype for p in roles.trainable.values()} == {torch.float32}
    roles.scores(batch, POLICY)[0].log_probs_N.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in roles.trainable.values())


class TestTargets:
    def test_named_layers_alone_carry_an_adapter(self, tiny_model: Any) -> None:
        roles = roles_on(tiny_model, targets="q_proj, down_proj")
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in roles.trainable} == {"q_proj", "down_proj"}

    @pytest.mark.parametrize(("name", "layers"), [("gpt2", {"c_attn", "c_proj", "c_fc"}), ("phi3", {"qkv_proj"})])
    def test_all_linear_finds_fused_and_transposed_layers_and_leaves_the_head(
        self, name: str, layers: set[str]
    ) -> None:
        roles = roles_on(tiny_decoder(name))
        carrying = {key.split(".lora_")[0].rpartition(".")[2] for key in roles.trainable}
        assert layers <= carrying
        assert "lm_head" not in carrying

    @pytest.mark.parametrize("targets", ["q_proj,quack", "", "lm_head", "all_linear"])
    def test_a_name_that_is_no_layer_is_refused_with_those_that_are(self, tiny_model: Any, targets: str) -> None:
        with pytest.raises(ConfigError, match="down_proj, gate_proj, k_proj") as refused:
            roles_on(tiny_model, targets=targets)
        assert "q_proj is" not in str(refused.value)

    def test_layers_that_peft_leaves_alone_are_named_with_the_others(self) -> None:
        with pytest.raises(ConfigError, match=r"(?s)'out_proj' is incompatible.*Name others.*in_proj, out_proj"):
            roles_on(tiny_decoder("mamba2"))
