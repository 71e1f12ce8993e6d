"""`mlopt export`."""

from __future__ import annotations

from typing import Any

import click

from mlopt.cli.common import comma, input_option, output_options, parse_arguments, trust_options
from mlopt.cli.compress import leaf_options, run_options


@click.command(short_help="exports only")
@click.argument("model")
@click.option("--to", "export", multiple=True, callback=comma, required=True, metavar="torchscript,onnx,aoti,tensorrt")
@run_options
@leaf_options
@click.option("--opset", type=click.IntRange(18, 23), default=20, show_default=True)
@click.option("--data", metavar="DATA", help="Calibration and parity data.")
@input_option
@trust_options
@output_options
def command(**options: Any) -> int:
    """Export MODEL as it is: checked and measured, not pruned. An .onnx file can be quantized and built into an engine."""
    from mlopt.cli.common import Screen
    from mlopt.cli.execute import default_directory, execute
    from mlopt.recipe import Model
    from mlopt.synthesis import build_recipe

    screen = Screen(options["as_json"], options["quiet"], options["verbose"], options["color"])
    model = Model(
        path=options["model"],
        arch=options["arch"],
        arch_args=parse_arguments(options["arch_args"]),
        allow_class=options["allow_class"],
        trust_code=options["trust_code"],
    )
    recipe = build_recipe(
        model,
        quantize=options["quantize"],
        export=options["export"],
        target=options["target"] or ("cpu",),
        input=options["inputs"],
        data=options["data"],
        seed=options["seed"],
        threads=options["threads"],
        batch=options["batch"],
        device=options["device"],
        bench=not options["no_bench"],
        budget_s=options["budget"],
        opset=options["opset"],
    )
    return execute(recipe, options["out"] or default_directory(options["model"]), screen, options["plan_only"])
