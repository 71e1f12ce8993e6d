"""Accuracy on the digits after pruning and the same fine-tuning, mlopt beside
torch-pruning: 5 seeds, half and a quarter of the MACs left."""

from __future__ import annotations

import argparse
import copy
import functools
import multiprocessing
import statistics
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.common import write
from benchmarks.pruning.peer import prune_to
from mlopt import Data
from mlopt.checking.accuracy import evaluate
from mlopt.data.sets import Part, adopt
from mlopt.model.outputs import logits_of
from mlopt.pruning.pruner import Options, prune_module
from mlopt.recipe.configs import Finetune, Train
from mlopt.training.loop import fit, recalibrate_batch_norm
from mlopt.training.objectives import supervised, supervised_loss, taylor_losses
from recipes.datasets import digits_arrays
from recipes.networks import digits_resnet

DENSE_EPOCHS, EPOCHS, SEEDS = 20, 6, 5
REMAIN = (0.5, 0.25)
METHODS = [
    ("l2", "uniform"),
    ("l2", "global"),
    ("l1", "uniform"),
    ("taylor", "uniform"),
    ("bn", "uniform"),
    ("random", "uniform"),
]


def parts() -> tuple[Part, Part]:
    """Training and held-out digits at 16x16."""
    arrays = {key: torch.from_numpy(value.copy()) for key, value in digits_arrays(16).items()}
    loaded = adopt(
        Data(
            train=TensorDataset(arrays["x"], arrays["y"]),
            evaluation=TensorDataset(arrays["x_val"], arrays["y_val"]),
        )
    )
    assert loaded.train is not None
    assert loaded.evaluation is not None
    return loaded.train, loaded.evaluation


def losses_for_peer(train: Part) -> list[Any]:
    """The same batches as mlopt's Taylor importance, as functions of the module."""

    def loss(inputs: Any, target: Any, module: nn.Module) -> torch.Tensor:
        return supervised_loss(logits_of(module(*inputs)), target)

    batches = [batch for _, batch in zip(range(8), train.batches(32, seed=0), strict=False)]
    return [functools.partial(loss, inputs, target) for inputs, target in batches]


def one_seed(seed: int) -> list[dict[str, Any]]:
    """Train once, then prune and fine-tune with every method of both tools. Every
    method gets the same batches and schedule."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    train, held = parts()
    dense = digits_resnet(16)
    fit(dense, train, supervised, Train(epochs=DENSE_EPOCHS), seed)
    rows = [
        {
            "seed": seed,
            "tool": "dense",
            "method": "",
            "remain": 1.0,
            "left": 1.0,
            "accuracy": score(dense, held),
        }
    ]
    inputs = train.take(8)[0]
    for remain in REMAIN:
        for importance, spread in METHODS:
            for tool in ("mlopt", "torch-pruning"):
                torch.manual_seed(seed)
                if tool == "mlopt":
                    losses = taylor_losses(dense, train, 0) if importance == "taylor" else ()
                    result = prune_module(
                        copy.deepcopy(dense),
                        inputs,
                        f"macs:{1 - remain}",
                        Options(importance, spread, seed=seed),
                        losses,
                    )
                    module, left = result.module, result.report.reached
                else:
                    losses = losses_for_peer(train) if importance == "taylor" else ()
                    module, left = prune_to(
                        dense.eval(),
                        tuple(x[:1] for x in inputs),
                        remain,
                        importance=importance,
                        spread=spread,
                        losses=losses,
                    )
                recalibrate_batch_norm(module, train, seed=seed)
                fit(module, train, supervised, Finetune(epochs=EPOCHS), seed)
                rows.append(
                    {
                        "seed": seed,
                        "tool": tool,
                        "method": f"{importance} {spread}",
                        "remain": remain,
                        "left": left,
                        "accuracy": score(module, held),
                    }
                )
    return rows


def score(module: nn.Module, held: Part) -> float:
    """Top-1 in percent."""
    found = evaluate(module.eval(), held)
    assert found is not None
    return found[1]


def main() -> None:
    """Run all seeds, two at a time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = [row for found in pool.map(one_seed, range(seeds), chunksize=1) for row in found]
    table = []
    for key in dict.fromkeys((row["tool"], row["method"], row["remain"]) for row in rows):
        values = [row for row in rows if (row["tool"], row["method"], row["remain"]) == key]
        accuracy = [row["accuracy"] for row in values]
        table.append(
            {
                "tool": key[0],
                "method": key[1],
                "macs_asked": key[2],
                "macs_left": statistics.mean(row["left"] for row in values),
                "accuracy_mean": statistics.mean(accuracy),
                "accuracy_sd": statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0,
            }
        )
    settings = {"dense_epochs": DENSE_EPOCHS, "finetune_epochs": EPOCHS, "seeds": seeds, "held_out": 359}
    write(
        "pruning-accuracy",
        {"command": "python -m benchmarks.pruning.accuracy", **settings, "table": table, "rows": rows},
    )


if __name__ == "__main__":
    main()
