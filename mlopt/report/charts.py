"""Bar charts as inline SVG: no script, no font, no network. Labels stand above their bars, so that a phone shows them whole."""

from __future__ import annotations

from html import escape

from mlopt.report.document import Chart

WIDTH, ROW, RIGHT, BAR = 340, 38, 72, 12


def svg(chart: Chart) -> str:
    """One chart. Bars start at zero; whiskers where a point has an interval."""
    height = ROW * len(chart.points)
    most = max([*(point.high or point.value for point in chart.points), *(point.value for point in chart.points), 1e-12])
    scale = (WIDTH - RIGHT) / most
    label = escape(f"{chart.title}: " + ", ".join(f"{p.label} {p.text}" for p in chart.points), quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">']
    for index, point in enumerate(chart.points):
        top = index * ROW + 18
        middle = top + BAR / 2
        width = max(1.5, point.value * scale)
        end = max(width, (point.high or 0) * scale)
        name = point.label if len(point.label) <= 44 else point.label[:43] + "…"
        parts.append(f'<text x="0" y="{top - 4}">{escape(name)}</text>')
        parts.append(f'<rect class="{"base" if index == 0 else "bar"}" x="0" y="{top}" width="{width:.1f}" height="{BAR}" rx="2"/>')
        if point.low is not None and point.high is not None:
            low, high = point.low * scale, point.high * scale
            parts.append(f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>')
        parts.append(f'<text class="value" x="{end + 6:.1f}" y="{top + BAR - 2}">{escape(point.text)}</text>')
    return "".join([*parts, "</svg>"])
