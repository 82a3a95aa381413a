"""What a GPU does, asked of NVML: memory, load, power, temperature.

Owns the few calls of libnvidia-ml.so.1, which comes with the driver, so that nothing is to be installed for them.
Invariants: where there is no such library, or no such device, there is nothing to read; a figure that the device does
not give (a part of a GPU has no load and no power of its own) is left out; nothing here raises, and nothing waits for
what the device works on. Loads no torch.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
_TEMPERATURE_OF_THE_DIE = 0


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class GpuReadings:
    """One device under watch."""

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:
        self._library = library
        self._device = device

    @classmethod
    def of(cls, uuid: str, library: Any = None) -> GpuReadings | None:
        """The device of this UUID, with or without GPU- before it; None where NVML does not know it, or is missing.

        `library` has NVML's functions; the driver's own where None.
        """
        try:
            nvml = ctypes.CDLL(LIBRARY) if library is None else library
            if nvml.nvmlInit_v2() != 0:
                return None
            named = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
            device = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByUUID(named.encode(), byref(device)) != 0:
                return None
        except (OSError, AttributeError):
            return None
        return cls(nvml, device)

    def read(self) -> dict[str, float]:
        """Metrics by name, as `engine.run.metric_names` has them; without those that the device does not give."""
        memory, load = _Memory(), _Utilization()
        milliwatts, celsius = ctypes.c_uint(), ctypes.c_uint()
        found: dict[str, float] = {}
        if self._asked("nvmlDeviceGetMemoryInfo", byref(memory)):
            found["gpu/memory_bytes"] = float(memory.used)
        if self._asked("nvmlDeviceGetUtilizationRates", byref(load)):
            found["gpu/load"] = load.gpu / 100
        if self._asked("nvmlDeviceGetPowerUsage", byref(milliwatts)):
            found["gpu/power_watts"] = milliwatts.value / 1000
        if self._asked("nvmlDeviceGetTemperature", _TEMPERATURE_OF_THE_DIE, byref(celsius)):
            found["gpu/temperature_celsius"] = float(celsius.value)
        return found

    def _asked(self, name: str, *arguments: Any) -> bool:
        call = getattr(self._library, name, None)
        return call is not None and call(self._device, *arguments) == 0
