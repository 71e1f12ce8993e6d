"""`mlopt run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import output_options, screen_of, stack, where_options


@click.command(short_help="run a recipe")
@click.argument("recipe", type=click.Path(path_type=Path))
@stack(*where_options)
@output_options
def command(recipe: Path, **options: Any) -> int:
    """Run RECIPE.yaml. The same recipe, model and data give the same artifacts."""
    from mlopt.cli.execute import execute, where_of
    from mlopt.recipe.schema import load

    screen = screen_of(options)
    return execute(load(recipe), where_of(options, str(recipe), screen), screen)
