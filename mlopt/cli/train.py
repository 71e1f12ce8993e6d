"""`mlopt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import output_options


@click.command(short_help="only the trunk of a recipe")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The run directory. Default: RECIPE-mlopt.")
@click.option("--nproc", type=click.IntRange(min=1), help="Processes, instead of the recipe's.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would run, and run nothing.")
@output_options
def command(recipe: Path, out: Path | None, nproc: int | None, plan_only: bool, **options: Any) -> int:
    """Run the passes of RECIPE.yaml that change the module, and leave the exports. DIR/model is the bundle."""
    from mlopt.cli.common import Screen
    from mlopt.cli.execute import default_directory, execute
    from mlopt.errors import RecipeError
    from mlopt.recipe.schema import TRUNK, load

    screen = Screen(options["as_json"], options["quiet"], options["verbose"], options["color"])
    whole = load(recipe)
    steps = tuple(step for step in whole.passes if step.pass_ in TRUNK)
    if not steps:
        raise RecipeError(f"{recipe} has no pass that trains or changes the module", "add `- pass: train`")
    quiet = whole.bench.model_copy(update={"enabled": False})
    part = whole.model_copy(update={"passes": steps, "nproc": nproc or whole.nproc, "bench": quiet})
    return execute(part, out or default_directory(str(recipe)), screen, plan_only)
