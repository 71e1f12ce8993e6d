"""Samples in memory, and the .npz files that they come from."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlopt.artifact import sha256_file
from mlopt.data.parts import DataSet, Part, WithTargets
from mlopt.errors import DataError

VALIDATION_SHARE = 5
"""One sample in five is held out when a data set has no validation part."""


class Arrays(WithTargets):
    """Samples held in memory: `x` with the samples first, and `y` as many targets, or
    None."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor | None) -> None:
        self.x, self.y = x, y

    def known_targets(self) -> torch.Tensor | None:
        return self.y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] if self.y is None else (self.x[index], self.y[index])


def _tensor(array: Any) -> torch.Tensor:
    """Floats become float32, integers int64: what layers and losses take."""
    array = np.asarray(array)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError("the data holds NaN or infinite values", "clean the data set")
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if array.dtype.kind in "iub":
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
    raise DataError(f"an array of dtype {array.dtype} is not numeric", "store numbers")


def from_npz(path: Path) -> DataSet:
    """The arrays `x`, `y`, `x_val`, `y_val` and `x_calib` of a file, all but the first
    optional. Raises `DataError`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise DataError(
            f"{path} is not a readable .npz file: {error}", "write it with numpy.savez(path, x=..., y=...)"
        ) from error
    if "x" not in arrays:
        raise DataError(
            f"{path} has no array 'x' (it has {', '.join(arrays) or 'nothing'})",
            "name the inputs x and the labels y",
        )
    tensors = {
        key: _tensor(value) for key, value in arrays.items() if key in ("x", "y", "x_val", "y_val", "x_calib")
    }
    x, y = tensors["x"], tensors.get("y")
    x_val, y_val = tensors.get("x_val"), tensors.get("y_val")
    for a, b, names in ((x, y, "x and y"), (x_val, y_val, "x_val and y_val")):
        if a is not None and b is not None and len(a) != len(b):
            raise DataError(
                f"{path}: {names} have {len(a)} and {len(b)} samples", "one label for every sample"
            )
    if not len(x):
        raise DataError(f"{path} holds no samples", "give at least one")
    if x_val is None and len(x) >= 2 * VALIDATION_SHARE:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        held = order[: len(x) // VALIDATION_SHARE]
        rest = order[len(x) // VALIDATION_SHARE :]
        x_val, y_val = x[held], None if y is None else y[held]
        x, y = x[rest], None if y is None else y[rest]
    train = Part("train", Arrays(x, y))
    calibration = Part("calibration", Arrays(tensors["x_calib"], None)) if "x_calib" in tensors else train
    evaluation = Part("evaluation", Arrays(x_val, y_val)) if x_val is not None else train
    return DataSet(sha256_file(path), train, calibration, evaluation)
