"""`mlopt report`. Answers without torch."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="render a report again")
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["html", "md", "json"]), help="Print this to standard output instead of writing files.")
def command(directories: tuple[Path, ...], kind: str | None) -> int:
    """Write report.html and report.md of each run directory again, from its run.json."""
    import json

    from mlopt import record
    from mlopt.report.write import render_html, render_markdown, write_reports

    for directory in directories:
        data = record.read(directory)
        if kind:
            click.echo(render_html(data) if kind == "html" else render_markdown(data) if kind == "md" else json.dumps(data, indent=1))
        else:
            for path in write_reports(directory if directory.is_dir() else directory.parent, data):
                click.echo(str(path))
    return 0
