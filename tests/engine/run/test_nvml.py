"""What NVML says of a GPU, by a library that answers as the driver's does."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from engine.run import nvml
from engine.run.metric_names import METRICS
from engine.run.nvml import GpuReadings

UUID = "GPU-6d0c2b1e-0000-1111-2222-333344445555"
NOT_SUPPORTED = 3
ALL = {"gpu/memory_bytes": 7.5e9, "gpu/load": 0.93, "gpu/power_watts": 412.5, "gpu/temperature_celsius": 61.0}


class Driver:
    """NVML's functions: each fills what it is pointed to and returns 0, or returns the number of a fault."""

    def __init__(self, *, starts: int = 0, lacks: tuple[str, ...] = ()) -> None:
        self.starts, self.lacks = starts, lacks
        self.asked: list[str] = []

    def nvmlInit_v2(self) -> int:
        return self.starts

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        handle._obj.value = 0xBEEF
        return 0 if uuid.decode() == UUID else 6

    def nvmlDeviceGetMemoryInfo(self, device: ctypes.c_void_p, memory: Any) -> int:
        memory._obj.total, memory._obj.used = 80 * 10**9, 7_500_000_000
        return self._answer("memory", device)

    def nvmlDeviceGetUtilizationRates(self, device: ctypes.c_void_p, load: Any) -> int:
        load._obj.gpu, load._obj.memory = 93, 40
        return self._answer("load", device)

    def nvmlDeviceGetPowerUsage(self, device: ctypes.c_void_p, milliwatts: Any) -> int:
        milliwatts._obj.value = 412_500
        return self._answer("power", device)

    def nvmlDeviceGetTemperature(self, device: ctypes.c_void_p, sensor: int, celsius: Any) -> int:
        celsius._obj.value = 61
        return self._answer("temperature", device) if sensor == 0 else 2

    def _answer(self, name: str, device: ctypes.c_void_p) -> int:
        assert device.value == 0xBEEF
        self.asked.append(name)
        return NOT_SUPPORTED if name in self.lacks else 0


@pytest.mark.parametrize("uuid", [UUID, UUID.removeprefix("GPU-")])
def test_every_figure_in_the_unit_of_its_name(uuid: str) -> None:
    readings = GpuReadings.of(uuid, Driver())
    assert readings is not None
    assert readings.read() == ALL
    assert ALL.keys() <= METRICS.keys()


def test_what_a_part_of_a_gpu_does_not_give_is_left_out() -> None:
    readings = GpuReadings.of(UUID, Driver(lacks=("load", "power")))
    assert readings is not None
    assert readings.read() == {name: ALL[name] for name in ("gpu/memory_bytes", "gpu/temperature_celsius")}


def test_no_driver_no_device_and_an_old_library_are_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GpuReadings.of(UUID, Driver(starts=9)) is None
    assert GpuReadings.of("GPU-of-another-machine", Driver()) is None
    assert GpuReadings.of(UUID, object()) is None
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-that-is-not-there.so.1")
    assert GpuReadings.of(UUID) is None
