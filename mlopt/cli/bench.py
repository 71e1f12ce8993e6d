"""`mlopt bench`."""

from __future__ import annotations

from typing import Any

import click

from mlopt.cli.common import input_option, ints, output_options, parse_arguments, trust_options


@click.command(short_help="measure side by side")
@click.argument("artifacts", nargs=-1, required=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--batch", default="1", callback=ints, show_default=True, help="Batch sizes: 1,8")
@click.option("--budget", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds of sampling a batch size.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@input_option
@trust_options
@output_options
def command(artifacts: tuple[str, ...], **options: Any) -> int:
    """Measure ARTIFACTS interleaved, each in its own process; the first is the baseline."""
    from mlopt.cli.common import Screen
    from mlopt.measuring.environment import fingerprint
    from mlopt.measuring.files import bench_files
    from mlopt.model.trust import Trust
    from mlopt.report.document import bench_columns, bench_row

    screen = Screen(options["as_json"], options["quiet"], options["verbose"], options["color"])
    trust = Trust(options["arch"], parse_arguments(options["arch_args"]), options["allow_class"], options["trust_code"])
    screen.say(f"measuring {len(artifacts)} artifacts ...")
    try:
        rows = bench_files(list(artifacts), trust, options["inputs"], options["threads"], options["batch"], options["budget"], options["device"])
    finally:
        screen.done()
    if screen.as_json:
        screen.json({"schema_version": 1, "environment": fingerprint(), "bench": rows})
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(bench_columns()):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    for row in rows:
        table.add_row(*bench_row(row))
    screen.out.print(table)
    return 0
