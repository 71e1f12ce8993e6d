"""`mlopt schema`."""

from __future__ import annotations

import click


@click.command(short_help="JSON schema of the recipe")
def command() -> int:
    """Print the JSON schema of the recipe, for editors: `# yaml-language-server: $schema=recipe.schema.json`."""
    import json

    from mlopt.recipe import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(by_alias=True), indent=1))
    return 0
