"""`mlopt schema`."""

from __future__ import annotations

import json

import click


@click.command(short_help="JSON schema of the recipe, or of the gate's policy")
@click.argument("what", type=click.Choice(["recipe", "gate"]), default="recipe")
def command(what: str) -> int:
    """Print the JSON schema of the recipe, or of the gate's policy, for editors and validators."""
    if what == "gate":
        from mlopt.judging.policy import Policy

        click.echo(json.dumps(Policy.model_json_schema(), indent=1))
    else:
        from mlopt.recipe.schema import Recipe

        click.echo(json.dumps(Recipe.model_json_schema(by_alias=True), indent=1))
    return 0
