"""The benchmark for a GPU, on a CPU: its arithmetic by hand, and every line of it on a model of two small layers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from engine.model.arithmetic import Arithmetic, sheet_tflops
from engine.model.model_sizes import ModelSizes
from tests.benchmarks import gpu
from tests.benchmarks.gpu_figures import arithmetic_of, counted
from tests.benchmarks.training_data import Row

SIZES = ModelSizes(
    parameters=0, stored_bytes=0, layers=2, hidden=4, intermediate=8, gated=True, query=6, key_value=3, vocabulary=10,
    softcap=False, query_heads=2, matrices={"a": (5, 4), "b": (4, 5)},
)  # fmt: skip
ROWS = [Row([1, 2], [3, 4, 5], [6])]


@pytest.mark.parametrize(
    ("method", "tokens", "scored", "seen"),
    [
        # 5 tokens see 1 + 2 + 3 + 4 + 5 keys
        ("sft", 5, 3, 15),
        # and the rejected answer's one token the prompt's two and itself
        ("dpo", 6, 4, 18),
        ("reward", 6, 0, 18),
    ],
)
def test_flops_by_hand(method: str, tokens: int, scored: int, seen: int) -> None:
    found = arithmetic_of(method, ROWS)
    assert found == Arithmetic(tokens, scored, seen)
    # 40 weights in the blocks, 40 in the head; 4 x 6 of width x 2 layers for each query and key
    products, attention = 40 * tokens + 40 * scored, 48 * seen
    assert found.forward(SIZES) == 2 * products + attention
    assert found.training(SIZES, full=False) == 4 * products + 3 * attention
    assert found.training(SIZES, full=True) == 6 * products + 3 * attention


def test_shapes_are_those_of_the_published_models() -> None:
    found = {}
    for name, shape in gpu.SHAPES.items():
        hidden, wide = shape["hidden_size"], shape["intermediate_size"]
        query, key = (shape[key] * shape["head_dim"] for key in ("num_attention_heads", "num_key_value_heads"))
        layer = 2 * hidden * query + 2 * hidden * key + 3 * hidden * wide
        found[name] = (shape["num_hidden_layers"] * layer + shape["vocab_size"] * hidden) / 1e9
    # Of the model cards, whose embeddings are tied: 1.23, 0.6 and 1.7 thousand million.
    assert found["llama-1b"] == pytest.approx(1.236, abs=1e-3)
    assert found["qwen3-0.6b"] == pytest.approx(0.596, abs=1e-3)
    assert found["qwen3-1.7b"] == pytest.approx(1.720, abs=1e-3)


def test_the_sheet_of_the_nearest_name() -> None:
    assert sheet_tflops("NVIDIA H100 PCIe") == 756
    assert sheet_tflops("NVIDIA H100 80GB HBM3") == 989
    assert sheet_tflops("NVIDIA L40S") == 362
    assert sheet_tflops("a card of tomorrow") is None


def test_operations_are_counted_and_on_a_cpu_nothing_is_launched() -> None:
    a, cpu = torch.randn(3, 3), torch.device("cpu")
    one, two = counted(lambda: a @ a, cpu), counted(lambda: (a @ a, a @ a), cpu)
    assert (two["launches"], two["waits"]) == (0, 0)
    assert two["operations"] == 2 * one["operations"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "methods"), [("lora", gpu.METHODS), ("full", ("dpo",))])
def test_every_line_runs_on_a_tiny_model(
    capsys: pytest.CaptureFixture[str], kind: str, methods: tuple[str, ...]
) -> None:
    asked = ["--device", "cpu", "--smoke", "--kind", kind, "--threads", "1", "--checkpointing"]
    assert gpu.main([*asked, "--method", methods[0] if len(methods) == 1 else "all", "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [line["method"] for line in report["lines"]] == list(methods)
    for line in report["lines"]:
        assert "engine_failed" not in line
        assert 0 < line["mfu"] < 1
        assert line["peak_bytes"] > 0 < line["estimate_bytes"]
        assert line["operations"] > 100
        assert ("beside_ratio" in line) == (kind == "lora"), line.get("trl_failed")
    table = gpu._table(report)
    assert table.count("tokens a second") == len(methods)
    assert table.count("TRL") == (len(methods) if kind == "lora" else 0)
