"""Charts as inline SVG: no script, no font, no network. Labels stand above what they
name, so that a phone shows them whole."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise

from mlopt.report.blocks import Bars, Distributions, Drawing, Judged, Line, Ratios, Waterfall

WIDTH, ROW, RIGHT, BAR = 340, 38, 72, 12


def svg(chart: Drawing) -> str:
    """One chart; every string in it is escaped."""
    match chart:
        case Bars():
            return _bars(chart)
        case Ratios():
            return _ratios(chart)
        case Distributions():
            return _distributions(chart)
        case Waterfall():
            return _waterfall(chart)
        case Line():
            return _line(chart)


def _open(height: float, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}"'
        ' xmlns="http://www.w3.org/2000/svg">'
    )


def _short(text: str, most: int = 44) -> str:
    return escape(text if len(text) <= most else text[: most - 1] + "…")


def _bars(chart: Bars) -> str:
    """Bars start at zero; whiskers where a point has an interval."""
    most = max(
        [
            *(point.high or point.value for point in chart.points),
            *(point.value for point in chart.points),
            1e-12,
        ]
    )
    scale = (WIDTH - RIGHT) / most
    parts = [
        _open(
            ROW * len(chart.points),
            f"{chart.title}: " + ", ".join(f"{p.label} {p.text}" for p in chart.points),
        )
    ]
    for index, point in enumerate(chart.points):
        top = index * ROW + 18
        middle = top + BAR / 2
        width = max(1.5, point.value * scale)
        end = max(width, (point.high or 0) * scale)
        parts.append(f'<text x="0" y="{top - 4}">{_short(point.label)}</text>')
        parts.append(
            f'<rect class="{"base" if index == 0 else "bar"}" x="0" y="{top}" width="{width:.1f}"'
            f' height="{BAR}" rx="2"/>'
        )
        if point.low is not None and point.high is not None:
            low, high = point.low * scale, point.high * scale
            parts.append(
                f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f}'
                f' {middle - 4}v8"/>'
            )
        parts.append(f'<text class="value" x="{end + 6:.1f}" y="{top + BAR - 2}">{escape(point.text)}</text>')
    return "".join([*parts, "</svg>"])


def _ratios(chart: Ratios) -> str:
    """Each interval on its own scale of twice its limit, or of what it needs: a limit
    of 2.5% and one of 50% are both readable."""
    parts = [
        _open(
            ROW * len(chart.rows),
            f"{chart.title}: " + ", ".join(f"{r.label} {r.text} {r.verdict}" for r in chart.rows),
        )
    ]
    for index, row in enumerate(chart.rows):
        top = index * ROW + 18
        reach = 1.15 * max(
            abs(v) for v in (row.limit * 1.6, row.value, _finite(row.low, row), _finite(row.high, row), 1e-9)
        )
        parts += [
            f'<text x="0" y="{top - 4}">{_short(row.label, 36)}: {escape(row.text)}</text>',
            *_interval(row, reach, top + BAR / 2),
        ]
    return "".join([*parts, "</svg>"])


def _finite(value: float, row: Judged) -> float:
    return value if math.isfinite(value) else math.copysign(4 * max(abs(row.limit), 0.01), value)


def _interval(row: Judged, reach: float, y: float) -> list[str]:
    def x(value: float) -> float:
        return WIDTH * (0.5 + max(-1.0, min(1.0, value / reach)) / 2)

    low, high, at, limit = x(_finite(row.low, row)), x(_finite(row.high, row)), x(row.value), x(row.limit)
    kind = {"PASS": "good", "FAIL": "bad", "ANOMALOUS": "bad", "INVALID": "bad"}.get(row.verdict, "base")
    left, right = (limit, WIDTH) if row.limit >= 0 else (0.0, limit)
    return [
        f'<rect class="zone" x="{left:.1f}" y="{y - 8}" width="{right - left:.1f}" height="16"/>',
        f'<path class="axis" d="M0 {y}H{WIDTH}M{x(0):.1f} {y - 8}v16"/>',
        f'<path class="limit" d="M{limit:.1f} {y - 8}v16"/>',
        f'<path class="span {kind}" d="M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}v8M{high:.1f} {y - 4}v8"/>',
        f'<circle class="{kind}" cx="{at:.1f}" cy="{y}" r="3.5"/>',
    ]


def _distributions(chart: Distributions) -> str:
    """Areas over one axis of time; the first is filled, the others are drawn as
    lines."""
    low, high = min(s.low_s for s in chart.shapes), max(s.high_s for s in chart.shapes)
    span, height, ground = max(high - low, 1e-12), 150, 112
    densities = [
        [count / max(1, sum(s.counts)) / max(s.high_s - s.low_s, 1e-12) for count in s.counts]
        for s in chart.shapes
    ]
    peak = max(max(values, default=0.0) for values in densities) or 1.0
    parts = [_open(height, f"{chart.title}: {_ms(low)} to {_ms(high)}")]
    for index, (shape, values) in enumerate(zip(chart.shapes, densities, strict=True)):
        step = (shape.high_s - shape.low_s) / max(1, len(values))
        points = [
            ((shape.low_s + i * step - low) / span * WIDTH, ground - value / peak * (ground - 30))
            for i, value in enumerate(values)
        ]
        edge = "".join(f"L{x:.1f} {y:.1f}h{step / span * WIDTH:.2f}" for x, y in points)
        kind = "base-area" if index == 0 else "bar-line"
        start = (shape.low_s - low) / span * WIDTH
        end = (shape.high_s - low) / span * WIDTH
        parts.append(f'<path class="{kind}" d="M{start:.1f} {ground}{edge}L{end:.1f} {ground}"/>')
        parts.append(
            f'<rect class="{"base" if index == 0 else "bar"}" x="0" y="{2 + 14 * index}" width="10"'
            ' height="10"/>'
        )
        late = f", {shape.beyond} calls beyond" if shape.beyond else ""
        parts.append(f'<text x="15" y="{11 + 14 * index}">{_short(shape.label + late)}</text>')
    parts.append(
        f'<path class="axis" d="M0 {ground}H{WIDTH}"/><text x="0" y="{ground + 16}">{_ms(low)}</text>'
    )
    parts.append(f'<text x="{WIDTH}" y="{ground + 16}" text-anchor="end">{_ms(high)}</text>')
    return "".join([*parts, "</svg>"])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


def _waterfall(chart: Waterfall) -> str:
    """From level to level; what a step took away is filled."""
    most = max([*(step.before for step in chart.steps), *(step.after for step in chart.steps), 1e-12])
    scale = (WIDTH - RIGHT) / most
    parts = [
        _open(
            ROW * len(chart.steps), f"{chart.title}: " + ", ".join(f"{s.label} {s.text}" for s in chart.steps)
        )
    ]
    for index, step in enumerate(chart.steps):
        top = index * ROW + 18
        low, high = sorted((step.before * scale, step.after * scale))
        kind = "base" if step.before == 0 else "good" if step.after <= step.before else "bad"
        parts.append(f'<text x="0" y="{top - 4}">{_short(step.label)}</text>')
        parts.append(
            f'<rect class="{kind}" x="{low:.1f}" y="{top}" width="{max(1.5, high - low):.1f}" height="{BAR}"'
            ' rx="2"/>'
        )
        parts.append(f'<text class="value" x="{high + 6:.1f}" y="{top + BAR - 2}">{escape(step.text)}</text>')
    return "".join([*parts, "</svg>"])


def _line(chart: Line) -> str:
    """A band for the intervals, a line for the values, a mark and a word at each
    change."""
    height, top, ground = 200, 34, 160
    low, high = min(chart.lows), max(chart.highs)
    span = max(high - low, 1e-9)
    count = max(1, len(chart.values) - 1)

    def at(index: int, value: float) -> str:
        return f"{8 + index / count * (WIDTH - 16):.1f} {ground - (value - low) / span * (ground - top):.1f}"

    band = [at(i, value) for i, value in enumerate(chart.highs)] + [
        at(i, value) for i, value in reversed(list(enumerate(chart.lows)))
    ]
    parts = [
        _open(height, f"{chart.title}: {chart.values[0]:.4g} to {chart.values[-1]:.4g}"),
        f'<path class="band" d="M{"L".join(band)}Z"/>',
    ]
    points = [at(i, value) for i, value in enumerate(chart.values)]
    parts += [f'<path class="bar-line" d="M{a}L{b}"/>' for a, b in pairwise(points)]
    parts += [f'<circle class="bar" cx="{p.split()[0]}" cy="{p.split()[1]}" r="2.5"/>' for p in points]
    for number, (index, text) in enumerate(chart.marks):
        x = at(index, low).split()[0]
        anchor, above = "end" if index > count / 2 else "start", 12 + 14 * (number % 2)
        parts.append(
            f'<path class="limit" d="M{x} {top - 4}V{ground}"/><text x="{x}" y="{above}"'
            f' text-anchor="{anchor}">{_short(text)}</text>'
        )
    parts.append(f'<text x="0" y="{ground + 18}">{_short(chart.labels[0], 18)}</text>')
    parts.append(
        f'<text x="{WIDTH}" y="{ground + 18}" text-anchor="end">{_short(chart.labels[-1], 18)}</text>'
    )
    parts.append(f'<text x="0" y="{ground + 34}">{low:.4g} to {high:.4g}</text>')
    return "".join([*parts, "</svg>"])


CELL_W, CELL_H, LABEL = 64, 20, 260


def heatmap(
    title: str, columns: list[str], rows: list[tuple[str, list[float]]], worst: float, best: float
) -> str:
    """A table of numbers on a ground that is darker the nearer they are to `worst`: one
    row a label, readable without colour."""
    width, height = LABEL + CELL_W * len(columns), 44 + CELL_H * len(rows)
    parts = [
        (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" xmlns="http://www.w3.org/2000/svg"'
            ' font-family="sans-serif" font-size="11">'
        ),
        f'<title>{escape(title)}</title><rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="16" font-size="13">{escape(title)}</text>',
    ]
    for at, column in enumerate(columns):
        parts.append(
            f'<text x="{LABEL + CELL_W * (at + 0.5):.0f}" y="38" text-anchor="middle">{escape(column)}</text>'
        )
    for index, (name, values) in enumerate(rows):
        top = 44 + CELL_H * index
        shown = name if len(name) <= 40 else "…" + name[-39:]
        parts.append(f'<text x="4" y="{top + 14}">{escape(shown)}</text>')
        for at, value in enumerate(values):
            share = min(1.0, max(0.0, (value - best) / (worst - best))) if worst != best else 0.0
            shade = "#" + "".join(f"{round(255 - share * (255 - channel)):02x}" for channel in (178, 34, 34))
            ink = "#fff" if share > 0.6 else "#111"
            left = LABEL + CELL_W * at
            parts.append(
                f'<rect x="{left}" y="{top}" width="{CELL_W - 2}" height="{CELL_H - 2}" fill="{shade}"/>'
            )
            parts.append(
                f'<text x="{left + CELL_W / 2 - 1:.0f}" y="{top + 14}" text-anchor="middle"'
                f' fill="{ink}">{value:.1f}</text>'
            )
    return "".join([*parts, "</svg>"])
