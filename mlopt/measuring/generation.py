"""What one set of fresh processes gave: the calls that were kept, and what each process
says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import MloptError
from mlopt.records.bench import GpuState, Load


@dataclass(frozen=True)
class ProcessReport:
    """What one process says of itself and of the artifact in it. None where it does not
    say.

    `load_s`, `first_s`: seconds to load the artifact, and of its first answer. `cores`:
    the cores that it is pinned to. `settled`: whether times had settled when the
    warm-up ended. `preempted`: how often the system took the core away.
    """

    runtime: str | None = None
    device: str | None = None
    provider: str | None = None
    precision: str | None = None
    load_s: float | None = None
    cores: tuple[int, ...] = ()
    first_s: float | None = None
    clock: str = "host"
    warmup_s: float | None = None
    settled: bool = True
    peak_rss_bytes: int | None = None
    preempted: int | None = None
    peak_device_bytes: int | None = None


@dataclass
class Generation:
    """What one set of fresh processes, one an artifact, gave on one workload.

    `blocks[i]` are the kept calls, in seconds, of artifact `i`: blocks `2r` and `2r+1`
    belong to round `r`. `reports[i]`: what its process says of itself. `failed[i]`: the
    error that ended it. `load`, `gpu`: the machine meanwhile.
    """

    blocks: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)
    reports: dict[int, ProcessReport] = field(default_factory=dict)
    failed: dict[int, MloptError] = field(default_factory=dict)
    began_s: float = 0.0
    seconds: float = 0.0
    load: Load = field(default_factory=Load)
    gpu: GpuState | None = None

    @property
    def rounds(self) -> int:
        """How many rounds every artifact that lived took part in."""
        return min((len(blocks) // 2 for blocks in self.blocks.values()), default=0)


def times_of(generations: list[Generation], index: int) -> list[float]:
    """All kept calls of an artifact, in seconds."""
    return [float(value) for g in generations for block in g.blocks.get(index, []) for value in block]


def reports_of(generations: list[Generation], index: int) -> list[ProcessReport]:
    """What the processes of an artifact said of themselves, one a generation."""
    return [generation.reports[index] for generation in generations if index in generation.reports]
