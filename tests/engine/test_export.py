"""An exported model says what the checkpoint said: adapters merged in fp32 and rounded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import export
from engine.data.packing import Document, pack
from engine.model.adapters import POLICY, REWARD, build_roles
from engine.model.heads import ScalarHead, ScoreScale
from engine.model.loading import load_causal_lm
from engine.model.saving import save_weights
from tests.engine.model.test_adapters import shake

IDS = torch.tensor([[10, 11, 12, 13, 14]])


def checkpoint(folder: Path, base: Path, *, kind: str, trained: str = POLICY, **shape: Any) -> tuple[Any, ScalarHead]:
    """A trained model, saved as a run saves it."""
    folder.mkdir()
    model = load_causal_lm(base, dtype=torch.float32, device="cpu")
    roles = build_roles(model, kind=kind, trained=trained, start_adapter=None, rank=4, **shape)
    roles.model.eval()
    shake(roles)
    head = ScalarHead(roles.hidden_size, seed=2)
    only_reward = {"reward_head": head, "reward_scale": ScoreScale(0.5, 2.0)} if trained == REWARD else {}
    save_weights(roles, folder, base_folder=base, **only_reward)
    return roles, head


def exported(tmp_path: Path, job: dict[str, str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (tmp_path / "out").mkdir()
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"out": str(tmp_path / "out"), **job}))
    assert export.main([str(file)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize("shape", [{}, {"rslora": True, "dora": True}])
def test_a_merged_model_has_the_logits_of_base_and_adapter(
    tiny_model_folder: Path, tmp_path: Path, shape: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    roles, _ = checkpoint(tmp_path / "adapter", tiny_model_folder, kind="lora", **shape)
    job = {"path": str(tiny_model_folder), "adapter": str(tmp_path / "adapter")}
    assert exported(tmp_path, job, capsys)["dtype"] == "float32"
    loaded = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out")).eval()
    with roles.use(POLICY) as model:
        assert torch.allclose(loaded(IDS).logits, model(IDS).logits, atol=1e-5)
    assert AutoTokenizer.from_pretrained(str(tmp_path / "out")).chat_template


def test_the_sum_is_rounded_once_to_the_precision_of_the_base(
    make_tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny_model(tmp_path / "base")
    load_causal_lm(base, dtype=torch.bfloat16, device="cpu").save_pretrained(str(base))
    roles, _ = checkpoint(tmp_path / "adapter", base, kind="lora")
    assert exported(tmp_path, {"path": str(base), "adapter": str(tmp_path / "adapter")}, capsys)["dtype"] == "bfloat16"
    layer = roles.model.model.layers[0].self_attn.q_proj
    scale = layer.scaling[POLICY]
    exact = layer.base_layer.weight + scale * layer.lora_B[POLICY].weight @ layer.lora_A[POLICY].weight
    merged = (
        load_causal_lm(tmp_path / "out", dtype=torch.bfloat16, device="cpu").model.layers[0].self_attn.q_proj.weight
    )
    assert torch.equal(merged, exact.to(torch.bfloat16))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_checkpoint_of_all_weights_takes_the_precision_of_its_base(
    make_tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny_model(tmp_path / "base")
    load_causal_lm(base, dtype=torch.bfloat16, device="cpu").save_pretrained(str(base))
    roles, _ = checkpoint(tmp_path / "full", base, kind="full")
    assert export.stored_precision(tmp_path / "full") == "float32"
    assert exported(tmp_path, {"path": str(tmp_path / "full"), "like": str(base)}, capsys)["dtype"] == "bfloat16"
    found = load_causal_lm(tmp_path / "out", dtype=torch.float32, device="cpu").state_dict()
    expected = roles.model.state_dict()
    assert all(torch.equal(found[name], value.bfloat16().float()) for name, value in expected.items())


def test_a_reward_model_stays_one(tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForSequenceClassification

    roles, head = checkpoint(tmp_path / "adapter", tiny_model_folder, kind="lora", trained=REWARD)
    exported(tmp_path, {"path": str(tiny_model_folder), "adapter": str(tmp_path / "adapter")}, capsys)
    loaded = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "out")).eval()
    batch = pack([Document(IDS[0].tolist(), [False] * 5)])
    expected = head(roles.hidden(batch, REWARD)[batch.last_rows_D])
    assert torch.allclose(loaded(IDS).logits[0], expected, atol=1e-5)


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"path": str(tmp_path / "none"), "out": str(tmp_path)}))
    assert export.main([str(file)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert export.main([]) == 2
