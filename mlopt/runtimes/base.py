"""What every runtime is: a name, the device, provider and precision it really uses, and
a call from arrays to arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlopt.model.trust import Trust

if TYPE_CHECKING:  # records bring pydantic along, 14 MB in the memory that is measured of a worker
    from mlopt.records.bench import Operator

Arrays = Sequence[NDArray[Any]]
Call = Callable[[], Any]
"""A runtime bound to its inputs: what is timed. Takes nothing; what it gives is thrown
away."""


@dataclass(frozen=True)
class OpenOptions:
    """What to load, and how it shall run.

    `path`: a file, or the directory of a bundle. `device`: `cpu` or `cuda`.
    `precision`: what the artifact was made for (`fp32`, `fp16`, `int8`, ...). `trust`:
    what a bundle may import; nothing but stock layers when None. `cuda_graph`: whether
    calls will be captured as a CUDA graph.
    """

    path: Path
    threads: int = 1
    device: str = "cpu"
    precision: str = "fp32"
    trust: Trust | None = None
    cuda_graph: bool = False


class Runtime(Protocol):
    """A loaded artifact, made from `OpenOptions`. Inputs and outputs are positional
    NumPy arrays on the host.

    `device` is where it really runs, `provider` what of the runtime does the work,
    `precision` that of the weights (None where the runtime does not say).
    """

    name: str
    device: str
    provider: str
    precision: str | None

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Run once. Shapes are the model's own."""
        ...

    def bind(self, inputs: Arrays, copies: bool, graph: bool) -> Call:
        """A call on these inputs with as little around it as the runtime allows.

        `copies`: arrays go from the host to the device and outputs back within the
        call; else inputs lie on the device before it and outputs stay there. `graph`:
        capture the call once as a CUDA graph and replay it. Raises `UsageError` for
        what this runtime cannot do.
        """
        ...

    def profile(self, inputs: Arrays, calls: int) -> list[Operator]:
        """Where the time goes, the slowest operator first; seconds a call, the mean of
        `calls`."""
        ...


class Fake:
    """A runtime with scripted latencies, so that statistics and protocol are tested
    without a clock.

    `latencies_s` are taken in turn; each call moves `now` on by one of them, and
    `clock` reads it.
    """

    name, device, provider, precision = "fake", "none", "fake", None

    def __init__(self, latencies_s: Sequence[float]) -> None:
        self._latencies = list(latencies_s)
        self._calls = 0
        self.now = 0.0

    def clock(self) -> float:
        """Seconds since the start of the script."""
        return self.now

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        self.now += self._latencies[self._calls % len(self._latencies)]
        self._calls += 1
        return [np.asarray(array) for array in inputs]

    def bind(self, inputs: Arrays, copies: bool, graph: bool) -> Call:
        return lambda: self(inputs)

    def profile(self, inputs: Arrays, calls: int) -> list[Operator]:
        return []
