"""What every runtime is: a name, the device and provider it really uses, and a call from arrays to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]


class Runtime(Protocol):
    """A loaded artifact. Inputs and outputs are positional NumPy arrays on the host; copies to a device are part of the call."""

    name: str
    device: str
    provider: str

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Run once. Shapes are the model's own."""
        ...


class Fake:
    """A runtime with scripted latencies, so that statistics and protocol are tested without a clock.

    `latencies_s` are taken in turn; each call moves `now` on by one of them, and `clock` reads it.
    """

    name, device, provider = "fake", "none", "fake"

    def __init__(self, latencies_s: Sequence[float]) -> None:
        self._latencies = list(latencies_s)
        self._calls = 0
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        self.now += self._latencies[self._calls % len(self._latencies)]
        self._calls += 1
        return [np.asarray(array) for array in inputs]
