"""Child processes: what they can import, the memory that they find, and that they end
with their parent. And how this process is stopped."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
from typing import Any

from mlopt.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, Interrupted

_PR_SET_PDEATHSIG = 1


def python_path() -> str:
    """A PYTHONPATH with which a child can import what this process can: a user's class
    may lie beside the script."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)


def release_memory() -> None:
    """Give freed memory back to the system: exporters leave cycles, and glibc keeps
    what was freed, beside processes that need it."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


_signals: list[int] = []


def stop_on_signals() -> None:
    """Ctrl-C and SIGTERM raise, and are remembered: an exception that Python drops
    (inside a weak reference's callback, a library's `except Exception`) is raised again
    by `check_stop`.
    """

    def stop(number: int, frame: Any) -> None:
        _signals.append(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Interrupted(EXIT_TERMINATED)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def check_stop() -> None:
    """Raises `Interrupted` when a signal has asked for it."""
    if _signals:
        raise Interrupted(_signals[0])


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux only; elsewhere
    children end when their pipe closes)."""
    if sys.platform == "linux":
        parent = os.getppid()
        with contextlib.suppress(OSError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)
