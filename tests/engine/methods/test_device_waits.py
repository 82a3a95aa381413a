"""A micro-batch tells the device what to do and does not wait for it: forward, loss, metrics and backward.

The step runs on the meta device, whose tensors have shapes and no values: a number that is read there raises. What is
counted are copies to it that the host waits for: a tensor that is made there from a list, and an operation that is
handed an index of the host. The one read of a step is counted in test_pass_counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.data.labelled_examples import LabelledExample, MismatchedPairs
from engine.methods.kto import KahnemanTverskyOptimisation, KtoSettings, LabelledData
from engine.methods.method import Method
from engine.model.adapters import POLICY, RoleModel, build_roles
from engine.model.loading import load_causal_lm
from tests.benchmarks.training_data import Row
from tests.benchmarks.training_sides import Plan, engine_method

META = torch.device("meta")
ROWS = [Row([5, 6, 7], [8, 9, 10, 11], [12, 13]), Row([14, 15], [16], [17, 18, 19, 20, 21])]


class Waits(TorchDispatchMode):
    """Notes every operation for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        kinds = {x.device.type for x in tensors if x.dim() > 0}
        name = str(func)
        copies = name.startswith(("aten._to_copy", "aten.copy_"))
        if copies and (kwargs or {}).get("device") == META and "meta" not in kinds and not kwargs.get("non_blocking"):
            self.seen.append(name)
        if not copies and len(kinds) > 1:
            self.seen.append(f"{name} with {' and '.join(sorted(kinds))}")
        return func(*args, **(kwargs or {}))


def waits(method: Method, monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Both micro-batches of one step, forward and backward."""
    found = Waits()
    make = torch.tensor

    def making(*args: Any, **named: Any) -> torch.Tensor:
        if str(named.get("device", "cpu")) != "cpu":
            found.seen.append("torch.tensor on the device")
        return make(*args, **named)

    monkeypatch.setattr(torch, "tensor", making)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which does not know of meta
    with found:
        for update in method.updates(0):
            assert len(update.micro_batches) == 2
            for run in update.micro_batches:
                terms = run()
                torch.stack([terms.losses[key] / update.counts[key] for key in terms.losses]).sum().backward()
    return found


def roles_on_meta(folder: Path) -> RoleModel:
    model = load_causal_lm(folder, dtype=torch.bfloat16, device="cpu").to(META)
    return build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=2)


@pytest.mark.parametrize("method", ["sft", "reward", "dpo"])
def test_no_micro_batch_waits(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    built, order = engine_method(
        Plan(method, "bf16", 1, 2, budget=9, device=META), roles_on_meta(tiny_model_folder), ROWS, torch.zeros(2, 2)
    )
    order.steps = [[0, 1]]
    found = waits(built, monkeypatch)
    assert found.operations > 100
    assert found.seen == []


def test_nor_does_one_of_kto(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.methods.method import ExampleOrder

    examples = [
        LabelledExample(str(i), tuple(row.prompt), tuple(row.chosen), i == 0, 1.0, str(i)) for i, row in enumerate(ROWS)
    ]
    data = LabelledData(examples, MismatchedPairs(examples, seed=1, max_length=64), torch.zeros(2, 2))
    method = KahnemanTverskyOptimisation(
        roles_on_meta(tiny_model_folder), data, None, ExampleOrder(2, batch_size=2, epochs=1, steps=1, seed=1),
        KtoSettings(0.1, 1.0, 1.0), tokens_per_micro_batch=7, device=META,
    )  # fmt: skip
    assert waits(method, monkeypatch).seen == []
