"""Data: training, calibration and evaluation batches from a .npz file, a folder of images, or a factory.

A batch is `(inputs, target)`: `inputs` a tuple of tensors with the batch first, `target` a tensor or None.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mlopt.artifact import TensorSpec, hash_tree, sha256_file, sha256_json
from mlopt.errors import DataError
from mlopt.model.trust import is_factory, resolve_factory

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor | None]
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm"}
VALIDATION_SHARE = 5
"""One sample in five is held out when a data set has no validation part."""


@dataclass(frozen=True)
class Data:
    """What a data factory returns: each part a torch `Dataset`, a `DataLoader`, or an iterable of `(inputs, target)` batches."""

    train: Any = None
    calibration: Any = None
    evaluation: Any = None


@dataclass(frozen=True)
class Part:
    """One part of a data set. `name` is for messages."""

    name: str
    source: Any

    def __post_init__(self) -> None:
        if isinstance(self.source, Iterator):
            raise DataError(f"the {self.name} data can be read only once", "give a list, a Dataset or a DataLoader instead of a generator")

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        """Batches of `size` (a DataLoader's or iterable's own size stays), shuffled when a seed is given."""
        source: Iterable[Any] = self.source
        if isinstance(self.source, Dataset):
            generator = torch.Generator().manual_seed(seed or 0)
            source = DataLoader(self.source, batch_size=size, shuffle=seed is not None, generator=generator)
        for item in source:
            yield self._batch(item)

    def _batch(self, item: Any) -> Batch:
        inputs, target = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
        inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        if not all(isinstance(tensor, torch.Tensor) for tensor in inputs):
            raise DataError(f"the {self.name} data gives {type(inputs[0]).__name__}, not tensors", "yield (inputs, target) with torch tensors")
        return inputs, target

    def take(self, count: int) -> Batch:
        """The first `count` samples as one batch. Raises `DataError` when there is none."""
        taken: list[Batch] = []
        have = 0
        for batch in self.batches(min(count, 256)):
            taken.append(batch)
            have += len(batch[0][0])
            if have >= count:
                break
        if not have:
            raise DataError(f"the {self.name} data is empty", "give at least one batch")
        inputs = tuple(torch.cat(parts)[:count] for parts in zip(*(batch[0] for batch in taken), strict=True))
        targets = [batch[1] for batch in taken if batch[1] is not None]
        return inputs, torch.cat(targets)[:count] if len(targets) == len(taken) else None


@dataclass(frozen=True)
class DataSet:
    """All parts that were given, and a fingerprint of their content."""

    fingerprint: str
    train: Part | None
    calibration: Part | None
    evaluation: Part | None

    def any_part(self) -> Part | None:
        return self.calibration or self.evaluation or self.train


NO_DATA = DataSet("none", None, None, None)


class Arrays(Dataset[Any]):
    """Samples held in memory."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor | None) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] if self.y is None else (self.x[index], self.y[index])


class Images(Dataset[Any]):
    """A folder of class folders; images become float32 in [0, 1], channels first, in the size the model takes."""

    def __init__(self, files: list[tuple[Path, int]], size: tuple[int, int, int]) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        path, label = self.files[index]
        channels, height, width = self.size
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((width, height)), dtype=np.float32) / 255
        except OSError as error:
            raise DataError(f"{path} is not a readable image: {error}", "remove it from the folder") from error
        pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels)), torch.tensor(label)


def load_data(text: str | None, inputs: tuple[TensorSpec, ...] = ()) -> DataSet:
    """The data set that `--data` names; none when `text` is None. Raises `DataError`."""
    if text is None:
        return NO_DATA
    path = Path(text)
    if path.is_dir():
        return _from_folder(path, inputs)
    if path.is_file():
        return _from_npz(path)
    if is_factory(text):
        factory = resolve_factory(text)
        try:
            data = factory()
        except Exception as error:
            raise DataError(f"{text} raised {type(error).__name__}: {error}", "fix the factory") from error
        if not isinstance(data, Data):
            raise DataError(f"{text} returned a {type(data).__name__}", "return mlopt.Data(train=..., calibration=..., evaluation=...)")
        return adopt(data, text)
    raise DataError(f"--data {text}: no such file, folder or factory", "give a .npz file, a folder of class folders, or package.module:factory")


def adopt(data: Data, name: str = "data") -> DataSet:
    """A `Data` object as a data set; its fingerprint is taken from its name and the first batch of each part."""
    parts = {key: Part(key, value) if value is not None else None for key, value in vars(data).items()}
    heads = {}
    for key, part in parts.items():
        if part is not None:
            inputs, target = part.take(64)
            heads[key] = [
                hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest() for tensor in (*inputs, *([] if target is None else [target]))
            ]
    fallback = parts["train"] or parts["evaluation"]
    return DataSet(sha256_json([name, heads]), parts["train"], parts["calibration"] or fallback, parts["evaluation"])


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


def _from_npz(path: Path) -> DataSet:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}", "write it with numpy.savez(path, x=..., y=...)") from error
    if "x" not in arrays:
        raise DataError(f"{path} has no array 'x' (it has {', '.join(arrays) or 'nothing'})", "name the inputs x and the labels y")
    tensors = {key: _tensor(value) for key, value in arrays.items() if key in ("x", "y", "x_val", "y_val", "x_calib")}
    x, y = tensors["x"], tensors.get("y")
    x_val, y_val = tensors.get("x_val"), tensors.get("y_val")
    for a, b, names in ((x, y, "x and y"), (x_val, y_val, "x_val and y_val")):
        if a is not None and b is not None and len(a) != len(b):
            raise DataError(f"{path}: {names} have {len(a)} and {len(b)} samples", "one label for every sample")
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


def _from_folder(path: Path, inputs: tuple[TensorSpec, ...]) -> DataSet:
    def listing(root: Path) -> list[tuple[Path, int]]:
        classes = sorted(folder for folder in root.iterdir() if folder.is_dir())
        return [(file, label) for label, folder in enumerate(classes) for file in sorted(folder.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]

    validation = next((path / name for name in ("val", "valid", "validation", "test") if (path / name).is_dir()), None)
    split = (path / "train").is_dir() and validation is not None
    train = listing(path / "train" if split else path)
    if not train:
        raise DataError(f"{path} holds no class folders with images", "one folder a class, images inside")
    held = listing(validation) if split and validation is not None else train[::VALIDATION_SHARE]
    rest = train if split else [file for i, file in enumerate(train) if i % VALIDATION_SHARE]
    dims = inputs[0].dims[-3:] if inputs else ()
    size = tuple(dim for dim in dims if isinstance(dim, int))
    if len(size) != 3:
        raise DataError("images need the size that the model takes", "say it: --input batch,3,224,224")
    part = Part("train", Images(rest or train, size))
    return DataSet(sha256_json(sorted(hash_tree(path).items())), part, part, Part("evaluation", Images(held, size)))


def check_labels(part: Part, outputs: torch.Tensor) -> None:
    """Raises `DataError` when labels cannot belong to a model with these outputs (shape (n, classes) or (n, ..., classes))."""
    for _, target in part.batches(4096):
        if target is None or target.is_floating_point() or outputs.ndim < 2:
            return
        low, high, classes = int(target.min()), int(target.max()), outputs.shape[-1]
        if low < 0 or high >= classes:
            raise DataError(
                f"the {part.name} labels run from {low} to {high}, but the model has {classes} outputs", f"labels must lie in 0..{classes - 1}"
            )
