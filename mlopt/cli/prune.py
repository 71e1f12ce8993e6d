"""`mlopt prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlopt.cli.common import input_option, out_option, output_options, store_option, trust_options
from mlopt.cli.compress import pruning_of, pruning_options

BUDGET_S = 5.0
"""Seconds of sampling, where --bench asks for it."""


@click.command(short_help="prune only, or apply a plan")
@click.argument("model")
@click.option(
    "--amount",
    metavar="AMOUNT",
    help="0.5 (half of the MACs), macs:0.5, params:0.5, channels:0.5, latency:0.5, layers:2",
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    metavar="PLAN.json",
    help="Apply what another run decided, instead of --amount.",
)
@pruning_options
@click.option(
    "--data", metavar="DATA", help="file.npz, a folder of class folders, or package.module:factory."
)
@out_option
@store_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of each measured runtime.",
)
@click.option("--bench", is_flag=True, help="Measure the pruned module beside the dense one.")
@input_option
@trust_options
@output_options
def command(amount: str | None, plan_file: Path | None, bench: bool, **options: Any) -> int:
    """Prune MODEL, prove it, and write DIR/model and DIR/plan.json.

    The plan says what stays of each width and why. Edit it, compare it, or apply it to
    another checkpoint of the same model.
    """
    from mlopt.cli.execute import run_wanted
    from mlopt.errors import UsageError
    from mlopt.recipe.from_options import Wanted

    if (amount is None) == (plan_file is None):
        raise UsageError("give either --amount or --plan", "mlopt prune model.pt --amount 0.5")
    if plan_file is not None and not plan_file.is_file():
        raise UsageError(f"{plan_file}: no such file", "give the plan.json of a pruning")
    from mlopt.recipe.schema import Bench

    plan = {"plan": str(plan_file.resolve())} if plan_file is not None else {}
    wanted = Wanted(
        prune=amount,
        pruning=pruning_of(options) | plan,
        input=options["inputs"],
        data=options["data"],
        seed=options["seed"],
        bench=Bench(threads=options["threads"], enabled=bench, budget_s=BUDGET_S),
    )
    return run_wanted(options, wanted)
