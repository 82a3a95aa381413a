"""Layers that are run again in the backward pass: the same bits, in the role they first ran in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.data.packing import Document, pack
from engine.model.activation_checkpointing import checkpointed_layers, free_bytes
from engine.model.adapters import POLICY, REFERENCE, build_roles
from tests.engine.model.architectures import tiny_decoder

DOCUMENTS = [
    Document.completion([10, 11, 12, 13], [14, 15, 16]),
    Document.completion([10, 11, 12, 13], [17, 18], shared=4),
    Document.completion([20, 21], [22, 23, 24]),
]
CPU = torch.device("cpu")


def loss_and_gradients(name: str, kind: str, *, checkpointing: bool, dropout: float = 0.0) -> list[torch.Tensor]:
    """A loss of a packed batch and all gradients. Between forward and backward the model plays another role."""
    roles = build_roles(tiny_decoder(name), kind=kind, trained=POLICY, start_adapter=None, rank=2, dropout=dropout)
    roles.keep_frozen_reference()
    roles.checkpointing = checkpointing
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    batch = pack(DOCUMENTS)
    torch.manual_seed(6)
    scores, _ = roles.scores(batch, POLICY)
    with torch.no_grad():
        roles.scores(batch, REFERENCE)
    loss = -scores.log_probs_N.sum()
    loss.backward()
    return [loss.detach(), *(p.grad for p in roles.trainable.values() if p.grad is not None)]


@pytest.mark.parametrize(
    ("name", "kind", "dropout"),
    [("llama", "lora", 0.0), ("llama", "lora", 0.3), ("gemma2", "lora", 0.0), ("qwen3", "full", 0.0)],
)
def test_loss_and_gradients_are_bit_equal(name: str, kind: str, dropout: float) -> None:
    off, on = (loss_and_gradients(name, kind, checkpointing=c, dropout=dropout) for c in (False, True))
    assert len(off) == len(on) > 15
    for a, b in zip(off, on, strict=True):
        assert torch.equal(a, b)


def test_each_layer_runs_twice_and_keeps_its_input_alone() -> None:
    runs: list[bool] = []
    kept: dict[bool, int] = {}
    for checkpointing in (False, True):
        roles = build_roles(tiny_decoder("qwen3"), kind="lora", trained=POLICY, start_adapter=None, rank=2)
        roles.checkpointing = checkpointing
        roles.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, on=checkpointing: runs.append(on))
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden_TH = roles.hidden(pack(DOCUMENTS), POLICY)
        kept[checkpointing] = sum(sizes.values())
        hidden_TH.sum().backward()
    assert runs == [False, True, True]
    assert kept[True] < 0.5 * kept[False]


@pytest.mark.parametrize(("free", "on"), [(10**12, False), (1000, True)])
def test_the_run_decides_by_what_is_free_and_says_so(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, on: bool
) -> None:
    from engine import assembly
    from engine.reporting import Reporter
    from engine.run.config_toml import read_config
    from engine.run.events import read_events
    from engine.run.status import new_status
    from engine.worker import train
    from tests.engine.run_maker import make_run

    monkeypatch.setattr(assembly, "free_bytes", lambda device, processes: free)
    # The program is there already, and what it takes is not among what is free.
    monkeypatch.setitem(assembly.FLOOR_BYTES, "cpu", 1_000_000)
    worked: list[bool] = []
    monkeypatch.setattr(
        "engine.model.adapters.checkpointed_layers", lambda *given: worked.append(True) or checkpointed_layers(*given)
    )
    folder = make_run(
        tmp_path / "run", "sft", tiny_model_folder, train__steps=1, probe__prompts=0, evaluation__at_start=False,
    )  # fmt: skip
    reporter = Reporter(folder, new_status(folder, None, phase="preparing"))
    train(read_config(folder.config_path), folder, reporter, lambda: False)
    (said,) = [event for event in read_events(folder) if event["kind"] == "activation_checkpointing"]
    assert said["on"] is on is bool(worked)
    assert said["why"].startswith("auto: about ")


def test_what_is_free_is_shared_by_processes_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.model import activation_checkpointing

    monkeypatch.setattr(activation_checkpointing, "free_memory_bytes", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 900))
    assert [free_bytes(torch.device(kind), 2) for kind in ("cpu", "cuda")] == [500, 700]
    monkeypatch.setattr(activation_checkpointing, "free_memory_bytes", lambda: None)
    assert free_bytes(CPU, 2) is None
