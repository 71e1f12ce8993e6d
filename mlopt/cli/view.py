"""`mlopt view`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="show an ONNX file in Netron")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option("--browse/--no-browse", default=True, help="Open a browser.")
def command(artifact: Path, port: int, browse: bool) -> int:
    """Serve ARTIFACT with Netron on this machine only, with its telemetry off, until
    Ctrl-C."""
    from mlopt.integrations.netron import serve

    address = serve(artifact, port, browse)
    click.echo(address.url)
    click.echo("Ctrl-C ends it", err=True)
    address.wait()
    return 0
