"""Data as it is given: a .npz file, a folder of images, a factory, or live objects.
Import data from here."""

from __future__ import annotations

from pathlib import Path

from mlopt.artifact import TensorSpec, sha256_json
from mlopt.data.arrays import Arrays, from_npz
from mlopt.data.fingerprint import fingerprint_of
from mlopt.data.images import Images, from_folder
from mlopt.data.labels import check_batch, check_labels
from mlopt.data.parts import NO_DATA, Batch, Data, DataSet, Part
from mlopt.errors import DataError
from mlopt.model.allowlist import resolve_factory
from mlopt.model.trust import is_factory

__all__ = [
    "NO_DATA",
    "Arrays",
    "Batch",
    "Data",
    "DataSet",
    "Images",
    "Part",
    "adopt",
    "check_batch",
    "check_labels",
    "load_data",
]


def load_data(text: str | None, inputs: tuple[TensorSpec, ...] = ()) -> DataSet:
    """The data set that `--data` names; none when `text` is None. `inputs`: what the
    model takes. Raises `DataError`."""
    if text is None:
        return NO_DATA
    path = Path(text)
    if path.is_dir():
        return from_folder(path, inputs)
    if path.is_file():
        return from_npz(path)
    if is_factory(text):
        factory = resolve_factory(text)
        try:
            data = factory()
        except Exception as error:
            raise DataError(f"{text} raised {type(error).__name__}: {error}", "fix the factory") from error
        if not isinstance(data, Data):
            raise DataError(
                f"{text} returned a {type(data).__name__}",
                "return mlopt.Data(train=..., calibration=..., evaluation=...)",
            )
        return adopt(data, text)
    raise DataError(
        f"--data {text}: no such file, folder or factory",
        "give a .npz file, a folder of class folders, or package.module:factory",
    )


def adopt(data: Data, name: str = "data") -> DataSet:
    """A `Data` object as a data set. Its fingerprint covers its name and all that its
    parts hold."""
    parts = {key: Part(key, value) if value is not None else None for key, value in vars(data).items()}
    # Reads the first samples: nothing that cannot be read, or is empty, gets any
    # further.
    content = {key: fingerprint_of(part) for key, part in parts.items() if part is not None}
    fallback = parts["train"] or parts["evaluation"]
    return DataSet(
        sha256_json([name, content]), parts["train"], parts["calibration"] or fallback, parts["evaluation"]
    )
