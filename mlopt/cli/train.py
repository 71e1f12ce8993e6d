"""`mlopt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import output_options, screen_of, stack, where_options


@click.command(short_help="only the trunk of a recipe")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--nproc", type=click.IntRange(min=1), help="Processes, instead of the recipe's.")
@stack(*where_options)
@output_options
def command(recipe: Path, nproc: int | None, **options: Any) -> int:
    """Run the passes of RECIPE.yaml that change the module, and leave the exports.
    DIR/model is the bundle."""
    from mlopt import catalog
    from mlopt.cli.execute import execute, where_of
    from mlopt.errors import RecipeError
    from mlopt.recipe.schema import load

    screen = screen_of(options)
    whole = load(recipe)
    steps = tuple(config for config in whole.passes if catalog.PASSES[config.pass_].role == "trunk")
    if not steps:
        raise RecipeError(f"{recipe} has no pass that trains or changes the module", "add `- pass: train`")
    quiet = whole.bench.model_copy(update={"enabled": False})
    part = whole.model_copy(update={"passes": steps, "nproc": nproc or whole.nproc, "bench": quiet})
    return execute(part, where_of(options, str(recipe), screen), screen)
