"""A folder of images, one folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlopt.artifact import TensorSpec, digest_of, hash_tree
from mlopt.data.arrays import VALIDATION_SHARE
from mlopt.data.parts import DataSet, Part, WithTargets
from mlopt.errors import DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm"}


class Images(WithTargets):
    """Image files with their class; they become float32 in [0, 1], channels first, in
    the size the model takes."""

    def __init__(self, files: list[tuple[Path, int]], size: tuple[int, int, int]) -> None:
        self.files, self.size = files, size

    def known_targets(self) -> torch.Tensor | None:
        return torch.tensor([label for _, label in self.files])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        path, label = self.files[index]
        channels, height, width = self.size
        try:
            with Image.open(path) as image:
                pixels = (
                    np.asarray(
                        image.convert("L" if channels == 1 else "RGB").resize((width, height)),
                        dtype=np.float32,
                    )
                    / 255
                )
        except OSError as error:
            raise DataError(
                f"{path} is not a readable image: {error}", "remove it from the folder"
            ) from error
        pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels)), torch.tensor(label)


def from_folder(path: Path, inputs: tuple[TensorSpec, ...]) -> DataSet:
    """`path/CLASS/IMAGE`, or the same below `path/train` and one of `val`, `valid`,
    `validation`, `test`.

    `inputs`: what the model takes; its last three dimensions are channels, height,
    width. Raises `DataError`.
    """

    def listing(root: Path) -> list[tuple[Path, int]]:
        classes = sorted(folder for folder in root.iterdir() if folder.is_dir())
        return [
            (file, label)
            for label, folder in enumerate(classes)
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]

    validation = next(
        (path / name for name in ("val", "valid", "validation", "test") if (path / name).is_dir()), None
    )
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
    return DataSet(digest_of(hash_tree(path)), part, part, Part("evaluation", Images(held, size)))
