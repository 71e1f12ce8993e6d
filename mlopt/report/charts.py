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


CELL_W, CELL_H, LABEL = 64, 20, 260


def heatmap(title: str, columns: list[str], rows: list[tuple[str, list[float]]], worst: float, best: float) -> str:
    """A table of numbers on a ground that is darker the nearer they are to `worst`: one row a label, readable without colour."""
    width, height = LABEL + CELL_W * len(columns), 44 + CELL_H * len(rows)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11">',
        f'<title>{escape(title)}</title><rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="16" font-size="13">{escape(title)}</text>',
    ]
    for at, column in enumerate(columns):
        parts.append(f'<text x="{LABEL + CELL_W * (at + 0.5):.0f}" y="38" text-anchor="middle">{escape(column)}</text>')
    for index, (name, values) in enumerate(rows):
        top = 44 + CELL_H * index
        shown = name if len(name) <= 40 else "…" + name[-39:]
        parts.append(f'<text x="4" y="{top + 14}">{escape(shown)}</text>')
        for at, value in enumerate(values):
            share = min(1.0, max(0.0, (value - best) / (worst - best))) if worst != best else 0.0
            shade = "#" + "".join(f"{round(255 - share * (255 - channel)):02x}" for channel in (178, 34, 34))
            ink = "#fff" if share > 0.6 else "#111"
            left = LABEL + CELL_W * at
            parts.append(f'<rect x="{left}" y="{top}" width="{CELL_W - 2}" height="{CELL_H - 2}" fill="{shade}"/>')
            parts.append(f'<text x="{left + CELL_W / 2 - 1:.0f}" y="{top + 14}" text-anchor="middle" fill="{ink}">{value:.1f}</text>')
    return "".join([*parts, "</svg>"])
