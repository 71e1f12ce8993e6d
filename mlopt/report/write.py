"""Renders a record. Strings from models are escaped: a tensor may be called `<script>`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlopt.report.charts import svg
from mlopt.report.document import summarise
from mlopt.store import write_atomic


def render_html(record: dict[str, Any]) -> str:
    """One self-contained page."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("mlopt.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    document = summarise(record)
    charts = [(chart, Markup(svg(chart))) for chart in document.charts]  # noqa: S704 - svg() escapes every string it is given
    # In a <script> block only "</" could end it early.
    raw = Markup(json.dumps(record).replace("</", "<\\/").replace("<!--", "<\\!--"))  # noqa: S704
    return environment.get_template("report.html").render(document=document, charts=charts, raw=raw)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _rows(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...], left: int = 1) -> list[str]:
    rule = ["---" if i < left else "---:" for i in range(len(columns))]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in (columns, tuple(rule), *rows)]


def render_markdown(record: dict[str, Any]) -> str:
    """The same as Markdown, for a pull request."""
    document = summarise(record)
    lines = [f"# {_cell(document.title)}", "", f"Status: **{document.status}**", ""]
    lines += [f"- {_cell(line)}" for line in document.headlines]
    if document.rows:
        lines += ["", "## Artifacts", "", *_rows(document.columns, document.rows)]
    if document.why:
        lines += ["", "## Why not smaller or faster", "", *(f"- {_cell(line)}" for line in document.why)]
    if document.not_measured:
        lines += ["", "## Not measured", "", *(f"- {_cell(line)}" for line in document.not_measured)]
    lines += ["", "## Passes", "", *_rows(("pass", "status", "time", "what"), document.passes, left=4)]
    lines += ["", "## Environment", "", *_rows(("", ""), document.facts, left=2)]
    lines += ["", "## Recipe", "", "```yaml", document.recipe.rstrip(), "```", ""]
    return "\n".join(lines)


def write_reports(directory: Path, record: dict[str, Any]) -> list[Path]:
    """Write `report.html` and `report.md`; returns their paths."""
    out = [directory / "report.html", directory / "report.md"]
    write_atomic(out[0], render_html(record).encode())
    write_atomic(out[1], render_markdown(record).encode())
    return out
