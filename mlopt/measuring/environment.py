"""Where a figure was measured. Imports neither torch nor a runtime; versions are read
from package metadata."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from mlopt.records.bench import Load
from mlopt.records.machine import Machine

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


def fingerprint() -> Machine:
    """What a reader of the figures must know."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    nvidia = _read("/proc/driver/nvidia/version")
    return Machine(
        versions={
            "python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := version_of(name))},
        },
        cpu=info.get("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        isa=tuple(flag for flag in ISA if flag in flags),
        gpu=nvidia.splitlines()[0] if nvidia else None,
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        kernel=platform.release(),
        virtual="hypervisor" in flags,
        load_at_start=os.getloadavg() if hasattr(os, "getloadavg") else None,
    )


@dataclass(frozen=True)
class Counters:
    """What the system has counted so far: ticks of all cores (in total, at work, taken
    by the hypervisor) and microseconds in which any process waited for a core. `mhz`:
    how fast the cores run; `load`: the load average."""

    at: float
    all: int
    busy: int | None
    stolen: int | None
    waited_us: int | None
    mhz: float | None
    load: float | None


def load_now() -> Counters:
    """One of the two ends of `load_between`."""
    ticks = [int(value) for value in (_read("/proc/stat") or "cpu").splitlines()[0].split()[1:9]]
    pressure = (_read("/proc/pressure/cpu") or "").splitlines()
    waited = next((part for line in pressure if line.startswith("some") for part in line.split()[-1:]), "")
    cores = (_read("/proc/cpuinfo") or "").splitlines()
    clocks = [float(line.partition(":")[2]) for line in cores if line.startswith("cpu MHz")]
    return Counters(
        at=time.monotonic(),
        all=sum(ticks),
        busy=sum(ticks) - ticks[3] - ticks[4] if len(ticks) == 8 else None,
        stolen=ticks[7] if len(ticks) == 8 else None,
        waited_us=int(waited.partition("=")[2]) if "=" in waited else None,
        mhz=sum(clocks) / len(clocks) if clocks else None,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def load_between(before: Counters, after: Counters) -> Load:
    """How busy the machine was between two readings; `mhz` is what the kernel shows at
    the end."""
    ticks, seconds = after.all - before.all, after.at - before.at
    return Load(
        busy=_share(before.busy, after.busy, ticks),
        stolen=_share(before.stolen, after.stolen, ticks),
        waited=_share(before.waited_us, after.waited_us, seconds * 1e6),
        mhz=after.mhz,
        load=after.load,
    )


def _share(before: int | None, after: int | None, whole: float) -> float | None:
    return (after - before) / whole if before is not None and after is not None and whole > 0 else None
