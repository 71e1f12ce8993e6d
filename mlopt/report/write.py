"""Renders documents. Strings from models are escaped: a tensor may be called
`<script>`."""

from __future__ import annotations

import json
from pathlib import Path

from mlopt.records import gate
from mlopt.records.edge import Json, text_of, to_json
from mlopt.records.gate import GateRecord
from mlopt.records.run import RunRecord
from mlopt.report.blocks import Block, Code, Document, Drawings, Lines, Properties, Table
from mlopt.report.charts import svg
from mlopt.report.formats import junit
from mlopt.report.run import run_document
from mlopt.report.verdict import verdict_document
from mlopt.system.files import write_atomic

BAD = ("FAILED", "DECLINED", "INTERRUPTED", "FAIL", "INVALID", "ANOMALOUS", "INCOMPARABLE", "INCONCLUSIVE")
"""A headline that begins with one of these words and a colon is bad news."""


def html(document: Document, data: Json, data_id: str) -> str:
    """One self-contained page, with the data that it was made of in a `<script
    type="application/json">`."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mlopt.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # In a <script> block only "</" could end it early.
    raw = Markup(json.dumps(data, default=str).replace("</", "<\\/").replace("<!--", "<\\!--"))  # noqa: S704
    return environment.get_template("report.html").render(
        document=document,
        blocks=[(type(block).__name__, block) for block in document.blocks],
        draw=lambda chart: Markup(svg(chart)),  # noqa: S704 - svg() escapes every string it is given
        bad=BAD,
        raw=raw,
        data_id=data_id,
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _rows(table: Table) -> list[str]:
    rule = ["---:" if table.is_figure(i) else "---" for i in range(len(table.columns))]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in (table.columns, tuple(rule), *table.rows)]


def markdown(document: Document) -> str:
    """The same as Markdown, for a pull request. Charts are left out: their figures
    stand in the tables."""
    lines = [f"# {_cell(document.title)}", "", f"Status: **{document.status}**", ""]
    lines += [f"- {_cell(line)}" for line in document.headlines]
    for block in document.blocks:
        lines += _block(block)
    return "\n".join([*lines, ""])


def _block(block: Block) -> list[str]:
    heading = ["", f"## {block.heading}", ""]
    match block:
        case Table():
            return [*heading, *_rows(block)]
        case Properties():
            return [*heading, *_rows(Table("", ("", ""), block.rows, left=2))]
        case Lines():
            return [*heading, *(f"- {_cell(line)}" for line in block.lines)]
        case Code():
            return [*heading, "```yaml", block.text.rstrip(), "```"]
        case Drawings():
            return []


def write_document(directory: Path, document: Document, data: Json, data_id: str) -> list[Path]:
    """Write `report.html` and `report.md`; returns their paths."""
    out = [directory / "report.html", directory / "report.md"]
    write_atomic(out[0], html(document, data, data_id).encode())
    write_atomic(out[1], markdown(document).encode())
    return out


def write_reports(directory: Path, record: RunRecord) -> list[Path]:
    """The two reports of a run."""
    return write_document(directory, run_document(record), to_json(record), "run")


def write_gate(directory: Path, record: GateRecord) -> list[Path]:
    """Write `gate.json`, and the reports made of it; returns their paths."""
    data = to_json(record)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / gate.FILE, text_of(data).encode())
    write_atomic(directory / "junit.xml", junit(record).encode())
    return [
        directory / gate.FILE,
        directory / "junit.xml",
        *write_document(directory, verdict_document(record), data, "gate"),
    ]
