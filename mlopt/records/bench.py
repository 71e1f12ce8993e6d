"""What was measured: one row an artifact and batch size, and files of such rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlopt.errors import UsageError
from mlopt.records.edge import Json, UpperBound, check_version, from_json, read_json
from mlopt.records.machine import Machine

SCHEMA_VERSION = 1
WHAT, HINT = "a record of measurements", "write some: mlopt bench ... -o FILE, or give a run directory"


@dataclass(frozen=True)
class Conditions:
    """Under which conditions calls are timed; kept beside every figure.

    `copies`: whether copying inputs to the device and outputs back is `in` the time or
    `out` of it (on a CPU both are the same). `flush`: caches are written over before
    every call. `cuda_graph`: the call is captured once and replayed.
    """

    threads: int = 1
    device: str = "cpu"
    copies: str = "in"
    flush: bool = False
    cuda_graph: bool = False


@dataclass(frozen=True)
class Ratio:
    """An estimate with its interval at `confidence`. A speed-up of 2 means: takes half
    as long."""

    estimate: float
    low: float
    high: UpperBound
    confidence: float

    def inverse(self) -> Ratio:
        """The same the other way round: from the ratio of times to the speed-up."""
        return Ratio(
            1 / self.estimate, 1 / self.high, 1 / self.low if self.low else float("inf"), self.confidence
        )

    def compared_with(self, name: str) -> Speedup:
        """The same as a speed-up against a named artifact."""
        return Speedup(self.estimate, self.low, self.high, self.confidence, name)


@dataclass(frozen=True)
class Speedup(Ratio):
    """How many times faster an artifact is than the one called `against`."""

    against: str


@dataclass(frozen=True)
class Load:
    """How busy the machine was, as shares of the time: `busy` and `stolen` of all
    cores, `waited` by any process for a core; `mhz`: the mean frequency of the cores;
    `load`: the load average. None where the system does not say."""

    busy: float | None = None
    stolen: float | None = None
    waited: float | None = None
    mhz: float | None = None
    load: float | None = None


@dataclass(frozen=True)
class GpuState:
    """What NVML said of the GPU. `energy_j`: joules between two readings (in one
    reading: since the driver was loaded); `throttled`: what slowed it down."""

    sm_mhz: float | None = None
    memory_mhz: float | None = None
    celsius: float | None = None
    watts: float | None = None
    energy_j: float | None = None
    used_bytes: int | None = None
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """Calls between the fastest and the 99th percentile in equal bins, in seconds;
    `beyond`: how many were slower."""

    low_s: float
    high_s: float
    counts: tuple[int, ...]
    beyond: int


@dataclass(frozen=True)
class Operator:
    """One operator of a profile. `seconds` a call of the artifact; `precision` and
    `provider` None where the profile does not say."""

    name: str
    kind: str
    provider: str | None
    precision: str | None
    seconds: float


@dataclass(frozen=True)
class Concurrent:
    """Several processes of one artifact at work at once. `joules_per_sample` needs
    NVML."""

    sessions: int
    throughput_per_s: float
    joules_per_sample: float | None = None


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One artifact at one batch size. Times in seconds a call, at percentiles of all
    kept calls; None where too few calls lie beyond one.

    `device`, `runtime`, `provider`, `precision`: what really ran. `settled`: whether
    times had settled when the warm-up ended. `speedup`: against the first row, None for
    the first; `step`: against what the artifact was made from.
    """

    artifact: str
    runtime: str | None = None
    provider: str | None = None
    device: str | None = None
    precision: str | None = None
    batch: int
    threads: int = 1
    copies: str = "in"
    flush: bool = False
    cuda_graph: bool = False
    clock: str = "host"
    p10_s: float | None = None
    p50_s: float
    p90_s: float | None = None
    p99_s: float | None = None
    p999_s: float | None = None
    throughput_per_s: float
    peak_rss_bytes: int | None = None
    peak_device_bytes: int | None = None
    load_s: float | None = None
    cold_start_s: float | None = None
    warmup_s: float | None = None
    settled: bool = True
    preempted: int = 0
    samples: int = 0
    rounds: int = 0
    epochs: int = 1
    load: Load = Load()
    gpu: GpuState | None = None
    histogram: Histogram | None = None
    operators: tuple[Operator, ...] = ()
    speedup: Speedup | None = None
    step: Speedup | None = None
    concurrent: Concurrent | None = None


@dataclass(frozen=True)
class BenchFile:
    """What `mlopt bench -o` writes."""

    environment: Machine
    bench: tuple[BenchRow, ...]
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class RowOfFile(BenchRow):
    """A row, and the file that it was read from."""

    file: str


@dataclass(frozen=True)
class MachineGroup:
    """Rows of several files that were measured on machines that agree: they may be set
    side by side."""

    machine: str
    environment: Machine
    files: tuple[str, ...]
    bench: tuple[RowOfFile, ...]


@dataclass(frozen=True)
class MergedFile:
    """What `mlopt bench --merge --json` prints."""

    machines: tuple[MachineGroup, ...]
    schema_version: int = SCHEMA_VERSION


def parse(data: Json, where: str) -> BenchFile:
    """Measurements from JSON: of a bench file, or of the record of a run. Raises
    `UsageError`."""
    check_version(data, SCHEMA_VERSION, where, WHAT, HINT)
    if "bench" not in data or "environment" not in data:
        raise UsageError(f"{where} holds no bench rows", HINT)
    return from_json(BenchFile, data, where, WHAT, HINT)


def read(path: Path) -> BenchFile:
    """Measurements from a file of `mlopt bench -o`, or from a `run.json`. Raises
    `UsageError`."""
    return parse(read_json(path, WHAT, HINT), str(path))


def merge(results: list[tuple[str, BenchFile]]) -> list[MachineGroup]:
    """One group for each machine. A speed-up was measured within one file and stays
    what it is.

    `results`: (file, its content).
    """
    groups: list[MachineGroup] = []
    for file, data in results:
        rows = tuple(RowOfFile(**vars(row), file=file) for row in data.bench)
        for at, group in enumerate(groups):
            if group.environment.comparable(data.environment):
                groups[at] = MachineGroup(
                    group.machine, group.environment, (*group.files, file), (*group.bench, *rows)
                )
                break
        else:
            groups.append(MachineGroup(str(data.environment), data.environment, (file,), rows))
    return groups
