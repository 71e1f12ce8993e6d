"""What every runtime is: a name, the device, provider and precision it really uses, and a call from arrays to arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]
Call = Callable[[], Any]
"""A runtime bound to its inputs: what is timed. Takes nothing; what it gives is thrown away."""


class Runtime(Protocol):
    """A loaded artifact. Inputs and outputs are positional NumPy arrays on the host."""

    name: str
    device: str
    provider: str

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Run once. Shapes are the model's own."""
        ...

    def bind(self, inputs: Arrays, copies: bool, graph: bool) -> Call:
        """A call on these inputs with as little around it as the runtime allows.

        `copies`: arrays go from the host to the device and outputs back within the call; else inputs lie on the device before it and outputs
        stay there. `graph`: capture the call once as a CUDA graph and replay it. Raises `UsageError` for what this runtime cannot do.
        """
        ...

    def profile(self, inputs: Arrays, calls: int) -> list[dict[str, Any]]:
        """Where the time goes, slowest first: {name, kind, provider, precision, seconds} for each operator, seconds a call."""
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

    def bind(self, inputs: Arrays, copies: bool, graph: bool) -> Call:
        return lambda: self(inputs)

    def profile(self, inputs: Arrays, calls: int) -> list[dict[str, Any]]:
        return []
