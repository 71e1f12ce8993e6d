"""`mlopt report`. Answers without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

FORMATS = ("html", "md", "json", "junit", "github", "gitlab")


@click.command(short_help="render a report again")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Print this to standard output instead of writing files.")
def command(directories: tuple[Path, ...], kind: str | None) -> int:
    """Write the reports of each directory again: of a run from its run.json, of a gate from its gate.json.

    --format github prints annotations, and appends to $GITHUB_STEP_SUMMARY where that is set. junit, github and gitlab are of gates.
    """
    from mlopt.records import files as record
    from mlopt.report.write import write_gate, write_reports

    for directory in directories:
        file = record.find(directory)
        is_gate = file.name == record.GATE_FILE
        data = record.read(file)
        if kind:
            click.echo(_printed(data, kind, is_gate, directory))
        else:
            home = directory if directory.is_dir() else directory.parent
            for path in write_gate(home, data) if is_gate else write_reports(home, data):
                click.echo(str(path))
    return 0


def _printed(data: dict[str, Any], kind: str, is_gate: bool, directory: Path) -> str:
    """One format of one record. Raises `UsageError` for a verdict's format of what is no verdict."""
    from mlopt.errors import UsageError
    from mlopt.report import formats
    from mlopt.report.document import summarise
    from mlopt.report.verdict import verdict_document
    from mlopt.report.write import html, markdown

    document = verdict_document(data) if is_gate else summarise(data)
    if kind == "html":
        return html(document, data, "gate" if is_gate else "run")
    if kind == "md":
        return markdown(document)
    if kind == "json":
        return json.dumps(data, indent=1)
    if not is_gate:
        raise UsageError(f"{directory} is a run, and {kind} reports a verdict", "judge it first: mlopt gate DIR --baseline OLD -o OUT")
    if kind == "junit":
        return formats.junit(data)
    return formats.gitlab(data) if kind == "gitlab" else formats.github(data, markdown(document))
