"""`mlopt bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlopt.cli.common import Screen, input_option, ints, output_options, screen_of, trust_of, trust_options

if TYPE_CHECKING:
    from mlopt.errors import MloptError
    from mlopt.records.bench import BenchRow


@click.command(short_help="measure side by side")
@click.argument("artifacts", nargs=-1, required=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--batch", default="1", callback=ints, show_default=True, help="Batch sizes: 1,8")
@click.option(
    "--budget",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Seconds of sampling a batch size.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--copies",
    type=click.Choice(["in", "out"]),
    default="in",
    show_default=True,
    help="Copies to and from the device, in the time or out of it.",
)
@click.option("--flush", is_flag=True, help="Write over the caches before every call.")
@click.option(
    "--cuda-graph", is_flag=True, help="Capture the call once, and time its replay. With --copies out."
)
@click.option(
    "--sessions",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Also the throughput of so many processes at once.",
)
@click.option(
    "--profile", is_flag=True, help="Show the slowest operators, and the precision they really run in."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the rows to this JSON file too: `--merge` reads it.",
)
@click.option(
    "--package",
    "--bundle",
    "package",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.zip",
    help="Pack artifacts, inputs and protocol; measure nothing.",
)
@click.option(
    "--merge", is_flag=True, help="ARTIFACTS are results (-o) of several machines: show them together."
)
@input_option
@trust_options
@output_options
def command(artifacts: tuple[str, ...], **options: Any) -> int:
    """Measure ARTIFACTS interleaved, each in its own process; the first is the
    baseline.

    An ARTIFACT that is a FILE.zip of --package is unpacked and measured as it says.
    """
    from mlopt.errors import UsageError
    from mlopt.records.bench import Conditions

    screen = screen_of(options)
    if options["merge"]:
        return _merge(artifacts, screen)
    conditions = Conditions(
        options["threads"], options["device"], options["copies"], options["flush"], options["cuda_graph"]
    )
    if options["cuda_graph"] and (options["device"] != "cuda" or options["copies"] != "out"):
        raise UsageError("--cuda-graph replays on the device", "add --device cuda --copies out")
    from mlopt.measuring.files import bench_files, parse_inputs
    from mlopt.measuring.package import is_packed, measure_packed, pack
    from mlopt.measuring.run import BenchProtocol

    trust = trust_of(options)
    protocol = BenchProtocol(options["budget"], conditions, options["sessions"])
    given = parse_inputs(options["inputs"])
    if options["package"] is not None:
        names = pack(options["package"], list(artifacts), trust, given, options["batch"], protocol)
        screen.line(f"{options['package']}: {', '.join(names)}")
        return 0
    screen.say(f"measuring {len(artifacts)} artifacts ...", "working")
    try:
        if len(artifacts) == 1 and is_packed(Path(artifacts[0])):
            asked = (
                click.get_current_context().get_parameter_source("device")
                is not click.core.ParameterSource.DEFAULT
            )
            rows, failed = measure_packed(
                Path(artifacts[0]), trust, options["device"] if asked else None, options["sessions"]
            )
        else:
            rows, failed = bench_files(list(artifacts), trust, given, options["batch"], protocol)
    finally:
        screen.done()
    _write(rows, options["out"], screen)
    if not screen.as_json:
        _show(rows, options["profile"], screen)
    return _failures(failed)


def _write(rows: list[BenchRow], out: Path | None, screen: Screen) -> None:
    """Rows as JSON, to a file and to standard output, where they were asked for."""
    from mlopt.measuring.environment import fingerprint
    from mlopt.records.bench import BenchFile
    from mlopt.records.edge import to_json, write_json

    data = to_json(BenchFile(fingerprint(), tuple(rows)))
    if out is not None:
        write_json(out, data)
    if screen.as_json:
        screen.json(data)


def _show(rows: list[BenchRow], profile: bool, screen: Screen) -> None:
    """Rows as a table, and what does not fit into one."""
    from mlopt.report.words import bench_columns, bench_row, duration

    screen.table(bench_columns(), [bench_row(row) for row in rows])
    for row in rows:
        if row.concurrent is not None:
            together = (
                f"{row.concurrent.throughput_per_s:.1f} a second with {row.concurrent.sessions} sessions"
            )
            screen.line(f"{row.artifact}: {together}")
        if profile and row.operators:
            slowest = ", ".join(
                f"{operator.name} {duration(operator.seconds)}" for operator in row.operators[:3]
            )
            precision = row.precision or "unknown precision"
            screen.line(f"{row.artifact}: runs in {precision}; slowest: {slowest}")


def _failures(failed: list[MloptError]) -> int:
    """Say what could not be measured; the exit code."""
    from mlopt.cli.main import show_error

    for error in failed:
        show_error(error.message, error.hint)
    return failed[0].exit_code if failed else 0


def _merge(files: tuple[str, ...], screen: Screen) -> int:
    """Results of several machines, grouped by machine: ratios hold within a group
    only."""
    from mlopt.records import run
    from mlopt.records.bench import MergedFile, merge, read
    from mlopt.records.edge import to_json
    from mlopt.report.words import bench_columns, bench_row

    places = [(file, Path(file) / run.FILE if Path(file).is_dir() else Path(file)) for file in files]
    groups = merge([(file, read(place)) for file, place in places])
    if screen.as_json:
        screen.json(to_json(MergedFile(tuple(groups))))
        return 0
    for group in groups:
        screen.line(f"{group.machine}  ({', '.join(group.files)})")
        screen.table(bench_columns(), [bench_row(row) for row in group.bench])
        screen.out.print()
    return 0
