"""`mlopt report`. Answers without torch."""

from __future__ import annotations

from pathlib import Path

import click

FORMATS = ("html", "md", "json", "junit", "github", "gitlab")


@click.command(short_help="render a report again")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="Print this to standard output instead of writing files.",
)
def command(directories: tuple[Path, ...], kind: str | None) -> int:
    """Write the reports of each directory again: of a run from its run.json, of a gate
    from its gate.json.

    --format github prints annotations, and appends to $GITHUB_STEP_SUMMARY where that
    is set. junit, github and gitlab are of gates.
    """
    from mlopt.records.gate import FILE as GATE_FILE
    from mlopt.report.write import write_gate, write_reports

    for directory in directories:
        home = directory if directory.is_dir() else directory.parent
        is_gate = (directory / GATE_FILE).is_file() or directory.name == GATE_FILE
        if kind:
            click.echo(_of_gate(directory, kind) if is_gate else _of_run(directory, kind))
            continue
        from mlopt.records import gate, run

        for path in (
            write_gate(home, gate.read(directory)) if is_gate else write_reports(home, run.read(directory))
        ):
            click.echo(str(path))
    return 0


def _of_run(directory: Path, kind: str) -> str:
    """One format of a run. Raises `UsageError` for a verdict's format."""
    from mlopt.errors import UsageError
    from mlopt.records import run
    from mlopt.records.edge import text_of, to_json
    from mlopt.report.run import run_document
    from mlopt.report.write import html, markdown

    record = run.read(directory)
    if kind == "html":
        return html(run_document(record), to_json(record), "run")
    if kind == "md":
        return markdown(run_document(record))
    if kind == "json":
        return text_of(to_json(record)).rstrip()
    hint = "judge it first: mlopt gate DIR --baseline OLD -o OUT"
    raise UsageError(f"{directory} is a run, and {kind} reports a verdict", hint)


def _of_gate(directory: Path, kind: str) -> str:
    """One format of a verdict."""
    from mlopt.records import gate
    from mlopt.records.edge import text_of, to_json
    from mlopt.report import formats
    from mlopt.report.verdict import verdict_document
    from mlopt.report.write import html, markdown

    record = gate.read(directory)
    if kind == "html":
        return html(verdict_document(record), to_json(record), "gate")
    if kind == "md":
        return markdown(verdict_document(record))
    if kind == "json":
        return text_of(to_json(record)).rstrip()
    if kind == "junit":
        return formats.junit(record)
    return (
        formats.gitlab(record)
        if kind == "gitlab"
        else formats.github(record, markdown(verdict_document(record)))
    )
