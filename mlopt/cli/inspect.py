"""`mlopt inspect`."""

from __future__ import annotations

from typing import Any

import click

from mlopt.cli.common import input_option, output_options, parse_arguments, trust_options


@click.command(short_help="what a model is and what can be pruned")
@click.argument("model")
@input_option
@trust_options
@output_options
def command(model: str, **options: Any) -> int:
    """Parameters, MACs, bytes, layers, what can be pruned, and what each runtime will say to MODEL."""
    from mlopt.cli.common import Screen
    from mlopt.inspection import inspect_model
    from mlopt.model.trust import Trust
    from mlopt.report.document import number, size

    screen = Screen(options["as_json"], options["quiet"], options["verbose"], options["color"])
    trust = Trust(options["arch"], parse_arguments(options["arch_args"]), options["allow_class"], options["trust_code"])
    found = inspect_model(model, trust, options["inputs"])
    if screen.as_json:
        screen.json(found)
        return 0

    def line(text: str) -> None:
        screen.out.print(text, markup=False, soft_wrap=True)

    line(f"{model}: {found['kind']}{', ' + found['class'] if 'class' in found else ''}, {size(found['bytes'])}")
    for spec in found.get("input", []):
        line(f"  input     {spec}")
    if "operators" in found:
        line(f"  opset     {found['opset']}")
        line("  operators " + ", ".join(f"{name} {count}" for name, count in found["operators"].items()))
        return 0
    if "params" not in found:
        return 0
    line(f"  params    {number(found['params'])}")
    line(f"  MACs      {number(found['macs']) if found['macs'] is not None else 'unknown: ' + found['prunable_reason']}")
    for layer in found["layers"] if options["verbose"] else []:
        line(f"  layer     {layer['path']}  {layer['class']}  {number(layer['params'])}")
    line(f"  prunable  {len(found['prunable'])} widths{'' if options['verbose'] else ' (-v lists them, and the layers)'}")
    for group in found["prunable"] if options["verbose"] else []:
        line(f"    {group['name']}  {group['width']}{f' in heads of {group_unit}' if (group_unit := group['unit']) > 1 else ''}")
    for name, count in found.get("unknown_operators", {}).items():
        line(f"  no rule   {name} x{count}: what it touches is never cut")
    for name, text in found["runtimes"].items():
        line(f"  {name:9} {text}")
    return 0
