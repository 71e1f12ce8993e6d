"""`mlopt history`. Answers without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import output_options, screen_of


@click.command(short_help="latency over commits")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write report.html and report.md there.")
@output_options
def command(paths: tuple[Path, ...], out: Path | None, **options: Any) -> int:
    """The latency of a model over commits, from the verdicts (gate.json) in PATHS: a
    chain of measured ratios, and where it changed."""
    from mlopt.errors import UsageError
    from mlopt.judging.history import load
    from mlopt.records.edge import to_json
    from mlopt.records.history import HistoryFile
    from mlopt.report.history import history_document
    from mlopt.report.write import write_document
    from mlopt.system.files import explain_os_error

    screen = screen_of(options)
    chains = load(list(paths))
    data = to_json(HistoryFile.of(chains))
    document = history_document(chains)
    if out is not None:
        try:
            if out.exists() and not out.is_dir():
                raise UsageError(f"{out} is a file, not a directory", "choose another -o")
            out.mkdir(parents=True, exist_ok=True)
            write_document(out, document, data, "history")
        except OSError as error:
            raise explain_os_error(error, out) from error
    if screen.as_json:
        screen.json(data)
        return 0
    for chain in chains:
        found = document.table(chain.artifact)
        assert found is not None
        screen.line(f"{chain.artifact}  on  {chain.machine}")
        screen.table(found.columns, list(found.rows), found.left)
        screen.out.print()
    for line in document.headlines:
        screen.line(line)
    if out is not None:
        screen.line(f"report  {out / 'report.html'}")
    return 0
