"""The benchmark of decoding on a GPU, on a CPU: its bytes by hand, and every line of it on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.model_sizes import ModelSizes
from tests.benchmarks import gpu_decode

SIZES = ModelSizes(
    parameters=0, stored_bytes=0, layers=2, hidden=4, intermediate=8, gated=True, query=6, key_value=3, vocabulary=10,
    softcap=False, query_heads=2, matrices={"a": (5, 4), "b": (4, 5)},
)  # fmt: skip


def test_bytes_and_shares_by_hand() -> None:
    plan = gpu_decode.Plan(rows=5, prompt=10, new_tokens=40)
    # 40 weights in the blocks and 40 in the head; 3 keys and 3 values a layer of 40 columns in each of 5 rows; 2 bytes
    whole = 2 * (40 + 40 + 5 * 40 * 2 * 2 * 3)
    assert gpu_decode.bytes_a_token(SIZES, plan) == whole
    found: dict[str, Any] = {
        "bytes_a_token": 6e9, "token_s": 0.004, "measured_gb_a_second": 3000.0, "sheet_gb_a_second": None,
    }  # fmt: skip
    assert gpu_decode.shares(found) == {"share_of_measured": pytest.approx(0.5), "share_of_sheet": None}


def test_all_of_it_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_decode, "REPEATS", 1)
    monkeypatch.setattr(gpu_decode, "copied_gb_a_second", lambda device: 10.0)
    found = gpu_decode.measure("smoke", gpu_decode.Plan(2, 5, 6), torch.device("cpu"), tmp_path)
    assert found["operations"] > 20
    assert found["launches"] == found["graphs"] == found["waits"] == 0
    assert found["share_of_measured"] is not None
    assert "kernels launched one by one" in gpu_decode.table({**found, "token_s": 1e-3})
