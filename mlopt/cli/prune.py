"""`mlopt prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import input_option, output_options, trust_options
from mlopt.cli.compress import pruning_of, pruning_options


@click.command(short_help="prune only, or apply a plan")
@click.argument("model")
@click.option("--amount", metavar="AMOUNT", help="0.5 (half of the MACs), macs:0.5, params:0.5, channels:0.5, latency:0.5, layers:2")
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), metavar="PLAN.json", help="Apply what another run decided, instead of --amount."
)
@pruning_options
@click.option("--data", metavar="DATA", help="file.npz, a folder of class folders, or package.module:factory.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The run directory. Default: MODEL-mlopt.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each measured runtime.")
@click.option("--bench", is_flag=True, help="Measure the pruned module beside the dense one.")
@input_option
@trust_options
@output_options
def command(amount: str | None, plan_file: Path | None, bench: bool, **options: Any) -> int:
    """Prune MODEL, prove it, and write DIR/model and DIR/plan.json.

    The plan says what stays of each width and why. Edit it, compare it, or apply it to another checkpoint of the same model.
    """
    from mlopt.cli.execute import compress_like
    from mlopt.errors import UsageError

    if (amount is None) == (plan_file is None):
        raise UsageError("give either --amount or --plan", "mlopt prune model.pt --amount 0.5")
    if plan_file is not None and not plan_file.is_file():
        raise UsageError(f"{plan_file}: no such file", "give the plan.json of a pruning")
    rest = {"quantize": (), "target": (), "batch": (1,), "device": "auto", "no_bench": not bench, "budget": 5.0, "plan_only": False}
    settings = pruning_of(options) | ({"plan": str(plan_file.resolve())} if plan_file is not None else {})
    return compress_like({**options, **rest}, prune=amount, pruning=settings, export=())
