"""`mlopt report`. Answers without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlopt.records.gate import GateRecord

FORMATS = ("html", "md", "json", "junit", "github", "gitlab")


@click.command(short_help="render a report again")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Print this to standard output instead of writing files.")
def command(directories: tuple[Path, ...], kind: str | None) -> int:
    """Write the reports of each directory again: of a run from its run.json, of a gate from its gate.json.

    --format github prints annotations, and appends to $GITHUB_STEP_SUMMARY where that is set. junit, github and gitlab are of gates.
    """
    from mlopt.records import files as record
    from mlopt.records import gate
    from mlopt.report.write import write_gate, write_reports

    for directory in directories:
        home = directory if directory.is_dir() else directory.parent
        if directory.name == gate.FILE or (directory / gate.FILE).is_file():
            verdict = gate.read(directory)
            written = [_verdict_as(verdict, kind)] if kind else write_gate(home, verdict)
        else:
            run = record.read(directory)
            written = [_run_as(run, kind, directory)] if kind else write_reports(home, run)
        for line in written:
            click.echo(str(line))
    return 0


def _verdict_as(verdict: GateRecord, kind: str) -> str:
    """One format of a verdict."""
    from mlopt.records.edge import text_of, to_json
    from mlopt.report import formats
    from mlopt.report.verdict import verdict_document
    from mlopt.report.write import html, markdown

    if kind == "html":
        return html(verdict_document(verdict), to_json(verdict), "gate")
    if kind == "md":
        return markdown(verdict_document(verdict))
    if kind == "json":
        return text_of(to_json(verdict)).rstrip()
    if kind == "github":
        return formats.github(verdict, markdown(verdict_document(verdict)))
    return formats.junit(verdict) if kind == "junit" else formats.gitlab(verdict)


def _run_as(data: dict[str, Any], kind: str, directory: Path) -> str:
    """One format of a run. Raises `UsageError` for a verdict's format."""
    from mlopt.errors import UsageError
    from mlopt.report.write import render_html, render_markdown

    if kind == "html":
        return render_html(data)
    if kind == "md":
        return render_markdown(data)
    if kind == "json":
        return json.dumps(data, indent=1)
    raise UsageError(f"{directory} is a run, and {kind} reports a verdict", "judge it first: mlopt gate DIR --baseline OLD -o OUT")
