"""How a step uses the machine: what its GPU does, and how much of the device's peak the training comes to.

Owns what of it goes into a step's metrics. Invariants: the GPU is asked once a second at most, whatever a step takes;
nothing waits for the device; where the peak of a device is not known here, or it does not work in bf16, there is no
utilisation, and on a CPU nothing at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

from engine.model.adapters import RoleModel
from engine.model.arithmetic import Arithmetic, sheet_tflops
from engine.model.model_sizes import ModelSizes
from engine.run.nvml import GpuReadings

ASK_EVERY_S = 1.0
MFU = "mfu"


class Machine:
    """The device of this process under watch. `step` is called once after each step."""

    def __init__(
        self,
        roles: RoleModel,
        sizes: ModelSizes | None,
        *,
        peak_tflops: float | None,
        gpu: GpuReadings | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`peak_tflops` is the device's in the run's precision; None where it is not known."""
        self._roles = roles
        self._sizes = sizes
        self._peak_tflops = peak_tflops
        self._gpu = gpu
        self._clock = clock
        self._asked_at = -ASK_EVERY_S
        if sizes is not None and peak_tflops is not None:
            roles.work = Arithmetic()

    def step(self, seconds: float) -> dict[str, float]:
        """What there is to say of a step that took so long."""
        found = {}
        work, self._roles.work = self._roles.work, Arithmetic() if self._roles.work is not None else None
        if work is not None and work.tokens and self._sizes is not None and self._peak_tflops is not None:
            flops = work.training(self._sizes, full=not self._roles.is_lora)
            found[MFU] = flops / (seconds * self._peak_tflops * 1e12)
        now = self._clock()
        if self._gpu is not None and now - self._asked_at >= ASK_EVERY_S:
            self._asked_at = now
            found.update(self._gpu.read())
        return found


def machine_of(roles: RoleModel, sizes: ModelSizes | None, precision: torch.dtype, device: torch.device) -> Machine:
    """The machine as a run on `device` finds it."""
    if device.type != "cuda":
        return Machine(roles, sizes, peak_tflops=None, gpu=None)
    properties = torch.cuda.get_device_properties(device)
    peak = sheet_tflops(properties.name) if precision == torch.bfloat16 else None
    part = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    # A part of a GPU has not the whole one's peak.
    is_part = part.startswith("MIG-")
    uuid = part.split(",")[0] if is_part else str(getattr(properties, "uuid", ""))
    return Machine(roles, sizes, peak_tflops=None if is_part else peak, gpu=GpuReadings.of(uuid))
