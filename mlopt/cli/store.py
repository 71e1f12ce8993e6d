"""`mlopt store`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import output_options, screen_of, store_option


@click.command(short_help="what the store of finished passes holds")
@store_option
@click.option("--size", is_flag=True, help="Say how much it holds. The default.")
@click.option("--gc", is_flag=True, help="Remove what no run has asked for of late.")
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="With --gc: of late is within so many days.",
)
@output_options
def command(store: Path | None, size: bool, gc: bool, days: float, **options: Any) -> int:
    """Finished passes, which runs share: how much room they take, and how to get it
    back."""
    from dataclasses import asdict

    from mlopt.report.words import size as bytes_for_people
    from mlopt.run.store import Store, default_place

    screen = screen_of(options)
    place = Store(store or default_place())
    removed = place.collect(days) if gc else None
    holds = place.usage()
    if screen.as_json:
        screen.json(
            {
                "store": str(place.root),
                "holds": asdict(holds),
                "removed": asdict(removed) if removed else None,
            }
        )
        return 0
    if removed is not None:
        screen.line(f"removed {removed.objects} artifacts, {bytes_for_people(removed.bytes)}")
    screen.line(f"{place.root}: {holds.objects} artifacts, {bytes_for_people(holds.bytes)}")
    return 0
