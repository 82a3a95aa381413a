"""What a step says of the machine: utilisation by arithmetic counted in the passes, and the GPU once a second."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.data.packing import Document, pack
from engine.machine import ASK_EVERY_S, Machine, machine_of
from engine.model.adapters import POLICY, REFERENCE, RoleModel, build_roles
from engine.model.arithmetic import Arithmetic
from engine.run.nvml import GpuReadings
from tests.engine.run.test_nvml import ALL, UUID, Driver
from tests.engine.test_gpu_benchmark import SIZES


def roles_of(model: Any, kind: str = "lora") -> RoleModel:
    return build_roles(model, kind=kind, trained=POLICY, start_adapter=None)


# A prompt of two tokens with answers of three and one: 6 tokens, 4 scored; 1+2+3+4+5 and 2+1 keys are seen.
PAIR = [Document.completion([1, 2], [3, 4, 5]), Document.completion([1, 2], [6], shared=2)]
WORK = Arithmetic(6, 4, 18)


def test_passes_with_a_gradient_are_counted_and_others_are_not(tiny_model: Any) -> None:
    roles = roles_of(tiny_model)
    batch = pack(PAIR)
    roles.scores(batch, POLICY)
    assert roles.work is None, "nobody wants to know"
    roles.work = Arithmetic()
    roles.scores(batch, POLICY)
    with torch.no_grad():
        roles.scores(batch, REFERENCE)
    assert roles.work == WORK
    roles.hidden(batch, POLICY, batch.last_rows_D)
    assert roles.work == WORK + Arithmetic(6, 0, 18), "a reward or a value needs no head of the language model"


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_utilisation_is_the_arithmetic_of_a_step_by_its_time_and_the_peak(tiny_model: Any, kind: str) -> None:
    roles = roles_of(tiny_model, kind)
    machine = Machine(roles, SIZES, peak_tflops=2.0, gpu=None)
    batch = pack(PAIR)
    for passes in (1, 3):
        for _ in range(passes):
            roles.scores(batch, POLICY)
        flops = passes * WORK.training(SIZES, full=kind == "full")
        assert machine.step(0.25) == {"mfu": pytest.approx(flops / (0.25 * 2e12))}
    assert machine.step(0.25) == {}, "a step without a training pass has none"


def test_the_gpu_is_asked_once_a_second_at_most(tiny_model: Any) -> None:
    driver, now = Driver(), [50.0]
    gpu = GpuReadings.of(UUID, driver)
    machine = Machine(roles_of(tiny_model), None, peak_tflops=None, gpu=gpu, clock=lambda: now[0])
    found = []
    for _ in range(8):
        found.append(machine.step(0.3))
        now[0] += 0.4 * ASK_EVERY_S
    assert found == [ALL, {}, {}, ALL, {}, {}, ALL, {}]
    assert len(driver.asked) == 3 * 4


def test_a_cpu_has_neither(tiny_model: Any) -> None:
    roles = roles_of(tiny_model)
    machine = machine_of(roles, SIZES, torch.bfloat16, torch.device("cpu"))
    roles.scores(pack(PAIR), POLICY)
    assert machine.step(1.0) == {}


@pytest.mark.parametrize(
    ("card", "precision", "visible", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, UUID, 989.0),
        ("NVIDIA H100 80GB HBM3", torch.float32, UUID, None),
        ("a card of tomorrow", torch.bfloat16, UUID, None),
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, "MIG-1", None),
    ],
)
def test_without_a_known_peak_there_is_no_utilisation(
    tiny_model: Any,
    card: str,
    precision: torch.dtype,
    visible: str,
    peak: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Properties:
        name, uuid = card, UUID.removeprefix("GPU-")

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    roles = roles_of(tiny_model)
    machine = machine_of(roles, SIZES, precision, torch.device("cuda"))
    roles.scores(pack(PAIR), POLICY)
    expected = {} if peak is None else {"mfu": pytest.approx(WORK.training(SIZES, full=False) / (peak * 1e12))}
    assert machine.step(1.0) == expected
