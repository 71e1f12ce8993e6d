"""`mlopt inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlopt.cli.common import input_option, output_options, screen_of, trust_of, trust_options
from mlopt.errors import UsageError

if TYPE_CHECKING:
    from mlopt.run.inspection import ModuleDescription


@click.command(short_help="what a model is and what can be pruned")
@click.argument("model")
@click.option("--sensitivity", is_flag=True, help="What each width costs when it alone is narrowed.")
@click.option(
    "--data", metavar="DATA", help="With --sensitivity: measure accuracy instead of the change of the output."
)
@click.option(
    "--svg", type=click.Path(path_type=Path), metavar="FILE", help="With --sensitivity: also draw it."
)
@input_option
@trust_options
@output_options
def command(model: str, **options: Any) -> int:
    """Parameters, MACs, bytes, layers, what can be pruned, and what each runtime will
    say to MODEL."""
    from mlopt.records.edge import to_json
    from mlopt.report.words import size
    from mlopt.run.inspection import FileDescription, inspect_model

    screen = screen_of(options)
    trust = trust_of(options)
    if options["sensitivity"]:
        return _sensitivity(model, trust, options, screen)
    if options["data"] or options["svg"]:
        raise UsageError("--data and --svg belong to --sensitivity", "add --sensitivity")
    found = inspect_model(model, trust, options["inputs"])
    if screen.as_json:
        screen.json(to_json(found))
        return 0
    if isinstance(found, FileDescription):
        screen.line(f"{model}: {found.kind}, {size(found.bytes)}")
        for spec in found.input:
            screen.line(f"  input     {spec}")
        if found.operators:
            screen.line(f"  opset     {found.opset}")
            screen.line(
                "  operators " + ", ".join(f"{name} {count}" for name, count in found.operators.items())
            )
        return 0
    for line in _of_module(model, found, options["verbose"]):
        screen.line(line)
    return 0


def _of_module(model: str, found: ModuleDescription, verbose: bool) -> Iterator[str]:
    """What a module is, line by line."""
    from mlopt.report.words import number, size

    yield f"{model}: {found.kind}, {found.class_}, {size(found.bytes)}"
    for spec in found.input:
        yield f"  input     {spec}"
    yield f"  params    {number(found.params)}"
    yield (
        f"  MACs      {number(found.macs) if found.macs is not None else 'unknown: ' + found.prunable_reason}"
    )
    for layer in found.layers if verbose else ():
        yield f"  layer     {layer.path}  {layer.class_}  {number(layer.params)}"
    yield f"  prunable  {len(found.prunable)} widths{'' if verbose else ' (-v lists them, and the layers)'}"
    for width in found.prunable if verbose else ():
        yield f"    {width.name}  {width.width}{f' in heads of {width.unit}' if width.unit > 1 else ''}"
    for name, count in found.unknown_operators.items():
        yield f"  no rule   {name} x{count}: what it touches is never cut"
    for name, text in found.runtimes.items():
        yield f"  {name:9} {text}"


def _sensitivity(model: str, trust: Any, options: dict[str, Any], screen: Any) -> int:
    """A table of the metric, one row a width and one column a share; the same as SVG
    where asked."""
    from rich.table import Table

    from mlopt.report.charts import heatmap
    from mlopt.run.inspection import sensitivity

    found = sensitivity(model, trust, options["inputs"], options["data"])
    shares = [f"-{ratio:.0%}" for ratio in found.ratios]
    title = f"{found.metric} when one width alone is narrowed (dense {found.dense:.1f})"
    if options["svg"] is not None:
        flat = [value for row in found.values for value in row] or [0.0]
        falling = found.metric.startswith(("accuracy", "r2"))
        drawing = heatmap(
            title,
            shares,
            list(zip(found.groups, map(list, found.values), strict=True)),
            min(flat) if falling else max(flat),
            found.dense,
        )
        try:
            options["svg"].write_text(drawing)
        except OSError as error:
            raise UsageError(
                f"{options['svg']}: {error.strerror}", "give a file in a directory that exists"
            ) from error
    if screen.as_json:
        screen.json(asdict(found))
        return 0
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    table.add_column("width of", no_wrap=True)
    for heading in ("channels", *shares):
        table.add_column(heading, justify="right")
    for name, width, row in zip(found.groups, found.widths, found.values, strict=True):
        table.add_row(name, str(width), *(f"{value:.1f}" for value in row))
    screen.out.print(table)
    if found.left_out:
        screen.out.print(f"{found.left_out} smaller widths were not tried", markup=False)
    return 0
