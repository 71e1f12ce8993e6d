"""`gate.json`: a verdict, what it rests on, and a baseline as a file. What is written
here is what scripts read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlopt.artifact import TensorSpec
from mlopt.errors import UsageError
from mlopt.records.bench import BenchRow, Conditions, Histogram, Load, Ratio
from mlopt.records.edge import Json, check_version, from_json, read_json
from mlopt.records.machine import Machine

SCHEMA_VERSION = 1
FILE = "gate.json"
WHAT, HINT = "a verdict of mlopt gate", "give the -o of mlopt gate"
MANIFEST_KIND = "mlopt baseline"
MANIFEST_HINT = "write one with: mlopt gate MODEL --save-baseline baseline.json"

Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS", "INCOMPARABLE", "INVALID"]
Kind = Literal["interleaved", "stored"]


@dataclass(frozen=True)
class GateRow:
    """One metric of one artifact at one shape. `baseline` and `candidate` are in
    `unit`; `ratio` is the candidate's over the baseline's."""

    metric: str
    artifact: str
    unit: str
    baseline: float | None
    candidate: float | None
    tolerance: float
    verdict: Word
    batch: int | None = None
    ratio: Ratio | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def title(self) -> str:
        """`latency of model.onnx at batch 1`."""
        return f"{self.metric} of {self.artifact}" + (
            f" at batch {self.batch}" if self.batch is not None else ""
        )


@dataclass(frozen=True)
class SideArtifact:
    """One artifact of a side; `format` None when only numbers were left of it."""

    name: str
    sha256: str
    bytes: int
    format: str | None


@dataclass(frozen=True)
class SideRecord:
    """What was given as candidate or baseline, and the artifacts it stood for, in the
    order of the pairs."""

    given: str
    artifacts: tuple[SideArtifact, ...]


@dataclass(frozen=True)
class Comparison:
    """What a report draws of one candidate and its baseline at one batch size: `bench`
    and `histograms` of baseline and candidate, `drift` of the baseline's own time
    between first and last processes."""

    artifact: str
    against: str
    batch: int
    epochs: int
    drift: float
    load: Load
    histograms: tuple[Histogram, ...]
    bench: tuple[BenchRow, ...]


@dataclass(frozen=True, kw_only=True)
class GateRecord:
    """A whole verdict. `kind`: `interleaved` when both were run side by side, `stored`
    when the baseline was only numbers."""

    schema_version: int = SCHEMA_VERSION
    verdict: Word
    kind: Kind
    exit_code: int
    reason: str | None = None
    candidate: SideRecord
    baseline: SideRecord
    policy: Json
    conditions: Conditions
    environment: Machine
    created: str | None = None
    commit: str | None = None
    rows: tuple[GateRow, ...] = ()
    notes: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    command: str | None = None


@dataclass(frozen=True)
class ManifestEntry:
    """One artifact of a baseline: where it lies (relative to the manifest), what it is,
    and how fast it was."""

    name: str
    path: str
    sha256: str
    bytes: int
    precision: str
    inputs: tuple[TensorSpec, ...]
    accuracy: float | None = None
    numbers: tuple[BenchRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A baseline as a file that git can track: what `mlopt gate --save-baseline`
    writes."""

    schema_version: int = SCHEMA_VERSION
    what: str = MANIFEST_KIND
    created: str | None = None
    commit: str | None = None
    environment: Machine
    entries: tuple[ManifestEntry, ...]


@dataclass(frozen=True, kw_only=True)
class SelfTestRow:
    """Trials of one kind of comparison. `want`: the verdict that would be right;
    `wrong`: FAIL for the same file, PASS for a slower one. Times of a comparison; None
    when there was no trial."""

    name: str
    profile: str
    want: Word
    right: int = 0
    wrong: int = 0
    inconclusive: int = 0
    trials: int = 0
    median_s: float | None = None
    longest_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class SelfTestFile:
    """What `mlopt gate --self-test` prints."""

    schema_version: int = SCHEMA_VERSION
    environment: Machine
    self_test: tuple[SelfTestRow, ...]


def parse(data: Json, where: str) -> GateRecord:
    """A verdict from JSON. Raises `UsageError`."""
    check_version(data, SCHEMA_VERSION, where, WHAT, HINT)
    return from_json(GateRecord, data, where, WHAT, HINT)


def read(path: Path) -> GateRecord:
    """A verdict from a directory that the gate wrote, or from a file. Raises
    `UsageError`."""
    file = path / FILE if path.is_dir() else path
    return parse(read_json(file, WHAT, HINT), str(file))


def read_manifest(path: Path) -> Manifest:
    """A baseline manifest. Raises `UsageError`."""
    what = "a baseline manifest"
    data = read_json(path, what, MANIFEST_HINT)
    if data.get("what") != MANIFEST_KIND:
        raise UsageError(f"{path} is not {what}", MANIFEST_HINT)
    check_version(data, SCHEMA_VERSION, str(path), what, MANIFEST_HINT)
    return from_json(Manifest, data, str(path), what, MANIFEST_HINT)
