"""`mlopt schema`."""

from __future__ import annotations

import json
from typing import Any

import click

WHAT = ("recipe", "policy", "run", "gate", "bench", "baseline")


@click.command(short_help="JSON schema of what mlopt reads and writes")
@click.argument("what", type=click.Choice(["recipe", "gate"]), default="recipe")
@click.option(
    "--of", "of", type=click.Choice(WHAT), help="Of what: `gate` is gate.json here, `policy` what judges."
)
def command(what: str, of: str | None) -> int:
    """Print a JSON schema, for editors and validators: of a recipe or of a gate's
    policy (WHAT), or, with --of, also of what mlopt writes: run.json, gate.json, the
    rows of `bench -o`, the manifest of `gate --save-baseline`."""
    click.echo(json.dumps(_schema(of or {"gate": "policy"}.get(what, what)), indent=1))
    return 0


def _schema(what: str) -> Any:
    if what == "recipe":
        from mlopt.recipe.schema import Recipe

        return Recipe.model_json_schema(by_alias=True)
    if what == "policy":
        from mlopt.judging.policy import Policy

        return Policy.model_json_schema()
    from mlopt.records import bench, gate, run
    from mlopt.records.edge import schema_of

    kinds: dict[str, Any] = {
        "run": run.RunRecord,
        "gate": gate.GateRecord,
        "bench": bench.BenchFile,
        "baseline": gate.Manifest,
    }
    return schema_of(kinds[what])
