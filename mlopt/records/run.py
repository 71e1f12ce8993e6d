"""`run.json`: what happened in one run of a recipe. The report is made of it alone;
scripts read it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mlopt import catalog
from mlopt.artifact import TensorSpec
from mlopt.errors import UsageError
from mlopt.records.bench import BenchRow
from mlopt.records.edge import Json, check_version, from_json, read_json, to_json, write_json
from mlopt.records.machine import Machine

SCHEMA_VERSION = 1
FILE = "run.json"
DENSE, COMPRESSED = "eager dense", "eager compressed"
"""What `bench` calls the module that came in, and the last of the trunk."""
WHAT, HINT = "a record of mlopt", "give a run directory: the -o of compress, run or gate"

PassStatus = Literal["ok", "declined", "cached", "failed"]
RunStatus = Literal["ok", "failed", "interrupted"]


@dataclass(frozen=True)
class Failure:
    """An error as the user saw it."""

    message: str
    hint: str = ""


@dataclass(frozen=True)
class Source:
    """Where the model came from: its kind in words, and the SHA-256 of what was
    given."""

    sha256: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Amount:
    """A count before the first pass and after the last."""

    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Compression:
    """How much smaller the module became: parameters, multiply-accumulates for one
    sample, bytes of its weights, prunable channels."""

    params: Amount = Amount()
    macs: Amount = Amount()
    bytes: Amount = Amount()
    channels: Amount = Amount()


@dataclass(frozen=True)
class Accuracy:
    """The task's metric in percent: of the dense module, and after each pass.
    `samples`: on how many."""

    metric: str
    baseline: float
    after: dict[str, float] = field(default_factory=dict)
    samples: int | None = None


@dataclass(frozen=True)
class Parity:
    """The outputs of an artifact against those of the module it was made from, and its
    metric in percent.

    Errors are absolute over all outputs; `max_error` is relative to the largest
    reference output; `agreement`: share of equal decisions.
    """

    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    max_error: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    samples: int | None = None
    finite: bool | None = None
    metric: float | None = None


FindingKind = Literal["note", "warning", "slow"]


@dataclass(frozen=True)
class Finding:
    """Something a pass found, in a sentence of its own. `kind`: `note`, `warning` (less
    than was hoped for) or `slow` (smaller, not faster); `subject`: what it is about (a
    layer, a file, the pass)."""

    kind: FindingKind
    subject: str
    sentence: str


@dataclass(frozen=True)
class PassEntry:
    """One pass. `role`: whether it changes the module or writes a file from it;
    `trains`: whether it keeps the shapes that it was given; `makes_dense`: whether its
    result is what later passes are compared with.

    `metrics`: figures of the pass, under names of its own. `made`: what `bench` calls
    its result.
    """

    name: str
    pass_: Annotated[str, Field(alias="pass")]
    config: Json = field(default_factory=dict)
    status: PassStatus = "failed"
    reason: str = ""
    seconds: float = 0.0
    input_sha256: str | None = None
    output_sha256: str | None = None
    metrics: Json = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    summary: str = ""
    role: Literal["trunk", "leaf"] = "leaf"
    trains: bool = False
    makes_dense: bool = False
    reproducer: str | None = None


@dataclass(frozen=True)
class ArtifactEntry:
    """One exported file. `path` is relative to the run directory; `bytes` counts the
    data files beside it."""

    name: str
    format: str
    precision: str
    target: str | None
    path: str
    bytes: int
    sha256: str
    parity: Parity | None = None


@dataclass(frozen=True)
class Seconds:
    """Where the time of a run went; `mlopt` is what was none of the others."""

    training: float = 0.0
    export: float = 0.0
    timing: float = 0.0
    mlopt: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A whole run. `input`: the signature of the model. `bench_key`: what the rows of
    `bench` depend on. `plans`: files beside this one with what prunings decided."""

    schema_version: int = SCHEMA_VERSION
    status: RunStatus = "interrupted"
    error: Failure | Literal["interrupted"] | None = None
    environment: Machine
    recipe: Json
    source: Source = Source()
    input: tuple[TensorSpec, ...] = ()
    notes: tuple[str, ...] = ()
    passes: tuple[PassEntry, ...] = ()
    compression: Compression = Compression()
    accuracy: Accuracy | None = None
    artifacts: tuple[ArtifactEntry, ...] = ()
    bench: tuple[BenchRow, ...] = ()
    bench_key: str | None = None
    not_measured: tuple[str, ...] = ()
    seconds: Seconds | None = None
    plans: tuple[str, ...] = ()


OLD_FINDINGS: tuple[tuple[str, FindingKind], ...] = (
    ("warning", "warning"),
    ("note", "note"),
    ("gain", "note"),
    ("why_fixed", "note"),
    ("rung_reason", "note"),
)
"""Sentences that stood among the metrics before passes had findings."""


def _of_first_edition(record: RunRecord, data: Json) -> RunRecord:
    """Records that were written before passes said their role: it is in the catalog,
    and what they found stands among their metrics."""
    written = data.get("passes")
    if not isinstance(written, list) or all(isinstance(e, dict) and "role" in e for e in written):
        return record
    return replace(record, passes=tuple(_old_entry(entry) for entry in record.passes))


def _old_entry(entry: PassEntry) -> PassEntry:
    spec = catalog.PASSES.get(entry.pass_)
    said = [
        (kind, str(entry.metrics[key]).rstrip(".")) for key, kind in OLD_FINDINGS if entry.metrics.get(key)
    ]
    return replace(
        entry,
        role=spec.role if spec else "leaf",
        trains=spec.trains if spec else False,
        summary=str(entry.metrics.get("summary") or ""),
        findings=tuple(Finding(kind, entry.name, f"{text}.") for kind, text in said),
    )


def parse(data: Json, where: str) -> RunRecord:
    """A record from JSON. Raises `UsageError`."""
    check_version(data, SCHEMA_VERSION, where, WHAT, HINT)
    return _of_first_edition(from_json(RunRecord, data, where, WHAT, HINT), data)


def read(path: Path) -> RunRecord:
    """The record of a run directory, or of a file. Raises `UsageError`."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{path} holds no {file.name}", HINT)
    return parse(read_json(file, WHAT, HINT), str(file))


def write(directory: Path, record: RunRecord) -> None:
    """Replace `run.json`, atomically. Raises `UsageError` when the place cannot be
    written."""
    write_json(directory / FILE, to_json(record))
