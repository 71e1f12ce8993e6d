"""`mlopt export`."""

from __future__ import annotations

from typing import Any

import click

from mlopt.cli.common import comma, input_option, output_options, trust_options
from mlopt.cli.compress import leaf_options, run_options


@click.command(short_help="exports only")
@click.argument("model")
@click.option(
    "--to", "export", multiple=True, callback=comma, required=True, metavar="torchscript,onnx,aoti,tensorrt"
)
@run_options
@leaf_options
@click.option("--opset", type=click.IntRange(18, 23), default=20, show_default=True)
@click.option("--data", metavar="DATA", help="Calibration and parity data.")
@input_option
@trust_options
@output_options
def command(**options: Any) -> int:
    """Export MODEL as it is: checked and measured, not pruned. An .onnx file can be
    quantized and built into an engine."""
    from mlopt.cli.compress import shared_of
    from mlopt.cli.execute import run_wanted
    from mlopt.recipe.from_options import Wanted

    return run_wanted(options, Wanted(export=options["export"], opset=options["opset"], **shared_of(options)))
