"""Where a figure was measured. Imports neither torch nor a runtime; versions are read from package metadata."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "numpy", "netron")
ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "neon", "asimddp")


def version_of(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    out: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        out.setdefault(key.strip(), value.strip())
    return out


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def fingerprint() -> Any:
    from mlopt.records.edge import from_json
    from mlopt.records.machine import Machine

    return from_json(Machine, _fp(), "", "", "")


def _fp() -> dict[str, Any]:
    """What a reader of the figures must know."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    nvidia = _read("/proc/driver/nvidia/version")
    return {
        "versions": {"python": platform.python_version(), **{name: found for name in PACKAGES if (found := version_of(name))}},
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": [flag for flag in ISA if flag in flags],
        "gpu": nvidia.splitlines()[0] if nvidia else None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "kernel": platform.release(),
        "virtual": "hypervisor" in flags,
        "load_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def load_now() -> dict[str, Any]:
    """What the system has counted so far, and how fast the cores run: the two ends of `load_between`."""
    ticks = [int(value) for value in (_read("/proc/stat") or "cpu").splitlines()[0].split()[1:9]]
    waited = next((part for line in (_read("/proc/pressure/cpu") or "").splitlines() if line.startswith("some") for part in line.split()[-1:]), "")
    clocks = [float(line.partition(":")[2]) for line in (_read("/proc/cpuinfo") or "").splitlines() if line.startswith("cpu MHz")]
    return {
        "at": time.monotonic(),
        "busy": sum(ticks) - ticks[3] - ticks[4] if len(ticks) == 8 else None,
        "all": sum(ticks),
        "stolen": ticks[7] if len(ticks) == 8 else None,
        "waited_us": int(waited.partition("=")[2]) if "=" in waited else None,
        "mhz": sum(clocks) / len(clocks) if clocks else None,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def load_between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """How busy the machine was between two readings, as shares of the time: `busy` and `stolen` of all cores, `waited` by any process
    for a core; `mhz` the mean frequency that the kernel shows at the end; `load` the load average. None where the system does not say."""
    ticks, seconds = after["all"] - before["all"], after["at"] - before["at"]

    def share(key: str, whole: float) -> float | None:
        return (after[key] - before[key]) / whole if before[key] is not None and whole > 0 else None

    waited = share("waited_us", seconds * 1e6)
    return {"busy": share("busy", ticks), "stolen": share("stolen", ticks), "waited": waited, "mhz": after["mhz"], "load": after["load"]}
