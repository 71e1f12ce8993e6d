"""What reports are made of: a title, headlines, and blocks that every renderer knows
how to show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One bar of a chart. `text` is printed beside it."""

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bars:
    """Bars that start at zero; the first is what the others are compared with. `better`
    says which way is good, in words."""

    title: str
    better: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Judged:
    """A ratio with its interval against its limit: all are differences from 1, in
    shares. `low` and `high` may be infinite."""

    label: str
    value: float
    low: float
    high: float
    limit: float
    verdict: str
    text: str


@dataclass(frozen=True)
class Ratios:
    """Intervals around no change, each with the limit that it is judged by."""

    title: str
    better: str
    rows: tuple[Judged, ...]


@dataclass(frozen=True)
class Shape:
    """One distribution: counts in equal bins from `low_s` to `high_s`, and how many lie
    beyond."""

    label: str
    low_s: float
    high_s: float
    counts: tuple[int, ...]
    beyond: int


@dataclass(frozen=True)
class Distributions:
    """Two or more distributions of call times over one axis."""

    title: str
    better: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Step:
    """One step of a waterfall, from one level to another."""

    label: str
    before: float
    after: float
    text: str


@dataclass(frozen=True)
class Waterfall:
    """How a total came about, step by step."""

    title: str
    better: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Line:
    """A level over a sequence (commits), with an interval at each point. `marks`:
    places where it changed, with a word about each."""

    title: str
    better: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    marks: tuple[tuple[int, str], ...] = ()


Drawing = Bars | Ratios | Distributions | Waterfall | Line


@dataclass(frozen=True)
class Table:
    """Rows under a heading. All columns but the first `left` and the last `words` are
    figures, and stand to the right."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    words: int = 0

    def is_figure(self, column: int) -> bool:
        """Whether a column, counted from 0, holds figures."""
        return self.left <= column < len(self.columns) - self.words


@dataclass(frozen=True)
class Properties:
    """Names and what is known of them."""

    heading: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Lines:
    """Sentences under a heading."""

    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Drawings:
    """Charts beside each other."""

    heading: str
    charts: tuple[Drawing, ...]


@dataclass(frozen=True)
class Code:
    """Text as it is, folded away."""

    heading: str
    name: str
    text: str


Block = Table | Properties | Lines | Drawings | Code


@dataclass(frozen=True)
class Document:
    """Everything a renderer needs. `good`: whether the status is. Blocks without
    content are left out by `of`."""

    title: str
    status: str
    good: bool
    headlines: tuple[str, ...]
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, title: str, status: str, good: bool, headlines: list[str], blocks: list[Block]) -> Document:
        """A document of those blocks that hold something."""
        return cls(title, status, good, tuple(headlines), tuple(block for block in blocks if _holds(block)))

    def lines(self, heading: str) -> tuple[str, ...]:
        """The sentences under a heading; empty when there are none."""
        return next(
            (block.lines for block in self.blocks if isinstance(block, Lines) and block.heading == heading),
            (),
        )

    def properties(self, heading: str) -> dict[str, str]:
        """The properties under a heading."""
        return next(
            (
                dict(block.rows)
                for block in self.blocks
                if isinstance(block, Properties) and block.heading == heading
            ),
            {},
        )

    def table(self, heading: str) -> Table | None:
        """The table under a heading."""
        return next(
            (block for block in self.blocks if isinstance(block, Table) and block.heading == heading), None
        )


def _holds(block: Block) -> bool:
    match block:
        case Table() | Properties():
            return bool(block.rows)
        case Lines():
            return bool(block.lines)
        case Drawings():
            return bool(block.charts)
        case Code():
            return bool(block.text)
