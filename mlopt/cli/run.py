"""`mlopt run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import output_options


@click.command(short_help="run a recipe")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The run directory. Default: RECIPE-mlopt.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would run, and run nothing.")
@output_options
def command(recipe: Path, out: Path | None, plan_only: bool, **options: Any) -> int:
    """Run RECIPE.yaml. The same recipe, model and data give the same artifacts."""
    from mlopt.cli.common import Screen
    from mlopt.cli.execute import default_directory, execute
    from mlopt.recipe.schema import load

    screen = Screen(options["as_json"], options["quiet"], options["verbose"], options["color"])
    return execute(load(recipe), out or default_directory(str(recipe)), screen, plan_only)
