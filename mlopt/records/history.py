"""The latency of a model over commits: a chain of measured ratios, and where it
changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlopt.records.bench import Ratio
from mlopt.records.edge import check_version, from_json, read_json
from mlopt.records.gate import SCHEMA_VERSION as GATE_VERSION
from mlopt.records.gate import WHAT
from mlopt.records.machine import Machine

SCHEMA_VERSION = 1
HINT = "leave it out"


@dataclass(frozen=True)
class JudgedArtifact:
    """An artifact of one side of a verdict."""

    name: str
    sha256: str


@dataclass(frozen=True)
class JudgedSide:
    """The artifacts of one side, in the order of the pairs."""

    artifacts: tuple[JudgedArtifact, ...]


@dataclass(frozen=True)
class JudgedRow:
    """One metric of a verdict. `ratio`: the candidate's over the baseline's, None where
    nothing was measured."""

    metric: str
    artifact: str
    verdict: str
    ratio: Ratio | None
    batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a history needs of a verdict. It is less than `GateRecord` holds, so that
    verdicts of other versions of mlopt can be read: a history goes on for years."""

    candidate: JudgedSide
    baseline: JudgedSide
    environment: Machine
    rows: tuple[JudgedRow, ...]
    commit: str | None = None
    created: str | None = None


def read_judged(path: Path) -> Judged | None:
    """The part of a `gate.json` that a history needs; None when the baseline was only
    numbers. Raises `UsageError`."""
    data = read_json(path, WHAT, HINT)
    check_version(data, GATE_VERSION, str(path), WHAT, HINT)
    if data.get("kind") != "interleaved":
        return None
    return from_json(Judged, data, str(path), WHAT, HINT)


@dataclass(frozen=True)
class Link:
    """One verdict: the log ratio of times, candidate over baseline, with its standard
    deviation."""

    name: str
    at: str
    machine: str
    artifact: str
    candidate: str
    baseline: str
    value: float
    sd: float
    verdict: str
    file: str


@dataclass(frozen=True)
class Point(Link):
    """A link with the level after it, as a share of the first baseline's time, and its
    95% bounds."""

    level: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """Where the latency changed: links `first` to `last` together by a factor `ratio`,
    with its 95% interval."""

    first: int
    last: int
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Chain:
    """The links of one artifact on one machine, oldest first.

    `levels[0]` is 1, before the first link; `lows` and `highs` are 95% bounds. `gaps`:
    links whose baseline is not the candidate of the one before: the chain goes on, and
    this is said.
    """

    artifact: str
    machine: str
    links: tuple[Link, ...]
    levels: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    changes: tuple[Change, ...]
    gaps: tuple[int, ...]

    def points(self) -> tuple[Point, ...]:
        """Every link with the level after it."""
        after = zip(self.links, self.levels[1:], self.lows[1:], self.highs[1:], strict=True)
        return tuple(Point(**vars(link), level=level, low=low, high=high) for link, level, low, high in after)


@dataclass(frozen=True)
class ChainRecord:
    """A chain as it is written down."""

    artifact: str
    machine: str
    points: tuple[Point, ...]
    gaps: tuple[int, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class HistoryFile:
    """What `mlopt history --json` prints."""

    chains: tuple[ChainRecord, ...]
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, chains: list[Chain]) -> HistoryFile:
        """The record of these chains."""
        return cls(tuple(ChainRecord(c.artifact, c.machine, c.points(), c.gaps, c.changes) for c in chains))
