"""What `make demo` runs: train a ResNet on digits, save it as model.pt, and give it to
`mlopt compress`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from mlopt.checking.accuracy import evaluate
from mlopt.cli.main import main as mlopt
from mlopt.data.sets import load_data
from mlopt.recipe.configs import Train
from mlopt.training.loop import fit
from mlopt.training.objectives import supervised
from recipes.datasets import digits_arrays
from recipes.networks import digits_resnet


def train(directory: Path, epochs: int, seed: int) -> None:
    """Write `digits.npz` and `model.pt`: a pickled module, as people save them."""
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / "digits.npz", **digits_arrays())  # type: ignore[arg-type]
    data = load_data(str(directory / "digits.npz"))
    torch.manual_seed(seed)
    model = digits_resnet()
    assert data.train is not None
    fit(
        model,
        data.train,
        supervised,
        Train(epochs=epochs, lr=3e-3),
        seed,
        progress=lambda line: print(f"  {line}", file=sys.stderr),
    )
    result = evaluate(model, data.evaluation)
    print(
        f"trained: {result[1]:.2f}% on digits that it has not seen" if result else "trained", file=sys.stderr
    )
    torch.save(model, directory / "model.pt")


def main() -> int:
    """Train unless the model is there already, then compress."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("demo"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.out / "model.pt").is_file():
        train(options.out, options.epochs, options.seed)
    command = ["compress", str(options.out / "model.pt"), "--prune", "0.5"]
    command += ["--distill", "6", "--lr", "2e-3", "--quantize", "int8"]
    command += ["--export", "torchscript,onnx,tensorrt", "--data", str(options.out / "digits.npz")]
    command += [
        "--allow-class",
        "recipes.networks.*",
        "--seed",
        str(options.seed),
        "-o",
        str(options.out / "run"),
    ]
    print("$ mlopt " + shlex.join(command), file=sys.stderr)
    return mlopt(command)


if __name__ == "__main__":
    sys.exit(main())
