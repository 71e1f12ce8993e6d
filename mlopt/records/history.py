"""The latency of a model over commits: a chain of measured ratios, and where it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Link:
    """One verdict: the log ratio of times, candidate over baseline, with its standard deviation."""

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
class Change:
    """Where the latency changed: links `first` to `last` of the chain together by a factor `ratio`, with its 95% interval."""

    first: int
    last: int
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Chain:
    """The links of one artifact on one machine, oldest first. `levels[0]` is 1, before the first link; `lows` and `highs` are 95% bounds. `gaps`:
    links whose baseline is not the candidate of the one before: the chain goes on, and this is said."""

    artifact: str
    machine: str
    links: tuple[Link, ...]
    levels: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    changes: tuple[Change, ...]
    gaps: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """For `mlopt history --json`."""
        points = [vars(link) | {"level": level, "low": low, "high": high} for link, level, low, high in
                  zip(self.links, self.levels[1:], self.lows[1:], self.highs[1:], strict=True)]  # fmt: skip
        return {"artifact": self.artifact, "machine": self.machine, "points": points, "gaps": list(self.gaps),
                "changes": [vars(change) for change in self.changes]}  # fmt: skip
