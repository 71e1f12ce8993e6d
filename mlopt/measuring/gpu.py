"""What NVML knows of a GPU while it is measured: clocks, throttling, power, energy,
memory. Nothing where there is no NVIDIA GPU or no `pynvml`.

Never changes a setting of the device. NVML: https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from mlopt.records.bench import GpuState

THROTTLED = {
    0x0000000000000004: "power cap",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "thermal (software)",
    0x0000000000000040: "thermal (hardware)",
    0x0000000000000080: "power brake",
}
"""nvmlClocksEventReasons that mean that the device could not run as fast as it was
asked to."""


class Gpu:
    """One device by NVML. `open` gives None where there is none."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    @classmethod
    def open(cls, index: int = 0, module: str = "pynvml") -> Gpu | None:
        """The device with this index. `module` is replaced in tests."""
        try:
            nvml = importlib.import_module(module)
            nvml.nvmlInit()
            return cls(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
        except Exception:  # no driver, no device, no package: each has an error of its own
            return None

    def _ask(self, name: str, *arguments: Any) -> Any:
        """One query; None where this device or driver does not answer it."""
        try:
            return getattr(self._nvml, name)(self._handle, *arguments)
        except Exception:
            return None

    def read(self) -> GpuState:
        """The state now; `energy_j` counts since the driver was loaded."""
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        power = self._ask("nvmlDeviceGetPowerUsage")
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return GpuState(
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", 1),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", 2),
            celsius=self._ask("nvmlDeviceGetTemperature", 0),
            watts=None if power is None else power / 1e3,
            energy_j=None if energy is None else energy / 1e3,
            used_bytes=None if memory is None else int(memory.used),
            throttled=tuple(word for bit, word in THROTTLED.items() if (reasons or 0) & bit),
        )


def between(before: GpuState | None, after: GpuState | None) -> GpuState | None:
    """Two readings as one: the later state, the energy in between, throttling at either
    end."""
    if before is None or after is None:
        return None
    spent = None
    if before.energy_j is not None and after.energy_j is not None:
        spent = after.energy_j - before.energy_j
    return replace(
        after, energy_j=spent, throttled=tuple(dict.fromkeys([*before.throttled, *after.throttled]))
    )
