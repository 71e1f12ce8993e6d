"""`mlopt compress`."""

from __future__ import annotations

import re
from typing import Any

import click

from mlopt.cli.common import comma, input_option, ints, output_options, stack, trust_options, where_options
from mlopt.errors import UsageError

leaf_options = stack(
    click.option(
        "--quantize",
        multiple=True,
        callback=comma,
        metavar="int8,fp16",
        help="One ONNX file a precision and target.",
    ),
    click.option(
        "--target",
        multiple=True,
        callback=comma,
        metavar="cpu,tensorrt",
        help="Which runtimes INT8 files are made for. Default: cpu.",
    ),
)

run_options = stack(
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Threads of each measured runtime.",
    ),
    click.option(
        "--batch", default="1", callback=ints, show_default=True, help="Batch sizes to measure: 1,8"
    ),
    click.option(
        "--budget",
        type=click.FloatRange(min=0.1),
        default=10.0,
        show_default=True,
        help="Seconds of sampling a batch size.",
    ),
    click.option("--no-bench", is_flag=True, help="Do not measure latency."),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    *where_options,
)


pruning_options = stack(
    click.option(
        "--sparsity",
        type=click.Choice(["unstructured", "2:4"]),
        help="Zeros in place of smaller shapes; AMOUNT is their share.",
    ),
    click.option(
        "--importance",
        type=click.Choice(["l2", "l1", "taylor", "bn", "random"]),
        default="l2",
        show_default=True,
    ),
    click.option(
        "--spread",
        type=click.Choice(["uniform", "global"]),
        default="uniform",
        show_default=True,
        help="The same share of every width?",
    ),
    click.option(
        "--keep", multiple=True, metavar="REGEX", help="Weights whose names match keep their width."
    ),
    click.option(
        "--round-to",
        type=click.IntRange(min=1),
        help="Widths stay multiples of this. Default: 8, finer where the budget needs it.",
    ),
)


def pruning_of(options: dict[str, Any]) -> dict[str, Any]:
    """The settings of the prune pass from `pruning_options`."""
    settings = {key: options[key] for key in ("importance", "spread", "keep", "round_to")}
    for pattern in options["keep"]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(
                f"--keep {pattern} is no regular expression: {error}",
                "quote it, and escape dots: --keep 'layer1\\.'",
            ) from error
    return settings | ({"kind": options["sparsity"]} if options["sparsity"] else {})


@click.command(short_help="the main job")
@click.argument("model")
@run_options
@click.option(
    "--prune",
    metavar="AMOUNT",
    help="0.5 (half of the MACs), macs:0.5, params:0.5, channels:0.5, latency:0.5, layers:2",
)
@pruning_options
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Prune and train in so many rounds.",
)
@click.option(
    "--finetune",
    type=click.IntRange(min=0),
    default=0,
    metavar="EPOCHS",
    help="Train on the labels after pruning.",
)
@click.option(
    "--distill",
    type=click.IntRange(min=0),
    default=0,
    metavar="EPOCHS",
    help="Train with the unpruned model as teacher.",
)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True)
@click.option(
    "--train-batch", type=click.IntRange(min=1), default=64, show_default=True, help="Batch size of training."
)
@leaf_options
@click.option(
    "--export",
    multiple=True,
    callback=comma,
    metavar="torchscript,onnx,aoti,tensorrt",
    help="Default: torchscript,onnx.",
)
@click.option(
    "--data", metavar="DATA", help="file.npz, a folder of class folders, or package.module:factory."
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    metavar="POINTS",
    help="Accuracy points that may be lost; past it exit 1.",
)
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train under DistributedDataParallel.",
)
@input_option
@trust_options
@output_options
def command(**options: Any) -> int:
    """Prune, recover, quantize, export, check, measure and report.

    MODEL is a bundle, a .pt or .safetensors file, or package.module:factory; --export
    of an .onnx file works too.
    """
    from mlopt.cli.execute import run_wanted
    from mlopt.recipe.from_options import Wanted

    wanted = Wanted(
        prune=options["prune"],
        pruning=pruning_of(options),
        iterations=options["iterations"],
        finetune=options["finetune"],
        distill=options["distill"],
        training={"lr": options["lr"], "batch_size": options["train_batch"]},
        export=options["export"] or ("torchscript", "onnx"),
        max_drop=options["max_drop"],
        nproc=options["nproc"],
        **shared_of(options),
    )
    return run_wanted(options, wanted)


def shared_of(options: dict[str, Any]) -> dict[str, Any]:
    """What `compress` and `export` ask for by the same options."""
    from mlopt.recipe.schema import Bench

    bench = Bench(
        threads=options["threads"],
        batch=options["batch"],
        enabled=not options["no_bench"],
        budget_s=options["budget"],
    )
    taken = {key: options[key] for key in ("quantize", "data", "seed", "device")}
    return {**taken, "target": options["target"] or ("cpu",), "input": options["inputs"], "bench": bench}
