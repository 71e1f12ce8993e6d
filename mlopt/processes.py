"""Child processes: what they can import, that they find room, and that they do not outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def importable() -> str:
    """A PYTHONPATH with which a child can import what this process can: a user's class may lie beside his script."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)


def release_memory() -> None:
    """Give freed memory back to the system: exporters leave cycles, and glibc keeps what was freed, beside processes that need it."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux only; elsewhere children end when their pipe closes)."""
    if sys.platform == "linux":
        parent = os.getppid()
        with contextlib.suppress(OSError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)
