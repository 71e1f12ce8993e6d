"""Horizontal bar charts as inline SVG: no script, no font, no network; readable at phone width."""

from __future__ import annotations

from html import escape

from mlopt.report.document import Chart

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 30, 210, 110, 8


def svg(chart: Chart) -> str:
    """One chart. Bars start at zero; whiskers where a point has an interval."""
    height = TOP * 2 + ROW * len(chart.points)
    most = max([*(point.high or point.value for point in chart.points), *(point.value for point in chart.points), 1e-12])
    scale = (WIDTH - LEFT - RIGHT) / most
    label = escape(f"{chart.title}: " + ", ".join(f"{p.label} {p.text}" for p in chart.points), quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">']
    for index, point in enumerate(chart.points):
        y = TOP + index * ROW
        width = max(1.5, point.value * scale)
        end = LEFT + max(width, (point.high or 0) * scale)
        name = point.label if len(point.label) <= 28 else point.label[:27] + "…"
        parts.append(f'<text x="{LEFT - 10}" y="{y + 20}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{"base" if index == 0 else "bar"}" x="{LEFT}" y="{y + 6}" width="{width:.1f}" height="18" rx="2"/>')
        if point.low is not None and point.high is not None:
            low, high = LEFT + point.low * scale, LEFT + point.high * scale
            parts.append(f'<path class="whisker" d="M{low:.1f} {y + 15}H{high:.1f}M{low:.1f} {y + 10}v10M{high:.1f} {y + 10}v10"/>')
        parts.append(f'<text class="value" x="{end + 8:.1f}" y="{y + 20}">{escape(point.text)}</text>')
    return "".join([*parts, "</svg>"])
