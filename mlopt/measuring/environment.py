"""Where a figure was measured. Imports neither torch nor a runtime; versions are read from package metadata."""

from __future__ import annotations

import importlib.metadata
import os
import platform
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


def fingerprint() -> dict[str, Any]:
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
