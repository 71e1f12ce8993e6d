"""What a pass takes and gives: a directory of files whose content is hashed, with a
format and the signature of its tensors."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import JsonValue

Json = dict[str, "JsonValue"]
"""A JSON object whose keys are not ours to name. (`records.edge.Json` is the same; this
file lies below that one.)"""


class Format(enum.StrEnum):
    """The formats that mlopt itself writes. `Artifact.format` is a text, for a plugin
    may add another: compare with `==`."""

    MODULE = "module"
    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    AOTI = "aoti"
    TENSORRT = "tensorrt"


def _format(text: str) -> str:
    """A format as it was written: the member of `Format` where it is one of ours, else
    the text itself."""
    try:
        return Format(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class TensorSpec:
    """One input: `dims` are sizes or the name of a dynamic dimension; `dtype` is
    torch's name (`float32`, `int64`)."""

    name: str
    dims: tuple[int | str, ...]
    dtype: str = "float32"

    def sizes(self, dynamic: int = 2) -> tuple[int, ...]:
        """Concrete sizes, every dynamic dimension set to `dynamic`."""
        return tuple(dim if isinstance(dim, int) else dynamic for dim in self.dims)

    def __str__(self) -> str:
        text = f"{self.name}={','.join(str(dim) for dim in self.dims)}"
        return text if self.dtype == "float32" else f"{text}:{self.dtype}"

    def to_json(self) -> Json:
        """As in `model.json`, in the store and in records."""
        return {"name": self.name, "dims": [*self.dims], "dtype": self.dtype}

    @classmethod
    def from_json(cls, data: Any) -> TensorSpec:
        """The inverse. Raises `KeyError` or `TypeError` for anything else: who reads
        the file names it."""
        dims = tuple(data["dims"])
        if not isinstance(data["dims"], (list, tuple)) or not all(
            isinstance(dim, (int, str)) for dim in dims
        ):
            raise TypeError("dims are sizes and names")
        return cls(str(data["name"]), dims, str(data["dtype"]))


@dataclass(frozen=True)
class Artifact:
    """What a pass made, on disk. `root` is a directory; `main` the file in it that a
    runtime opens ("" for a bundle, the directory itself).

    `digest` is the SHA-256 of the sorted (path, SHA-256) pairs of its files, so equal
    content has equal digest anywhere.
    """

    name: str
    format: str
    root: Path
    main: str
    digest: str
    inputs: tuple[TensorSpec, ...]
    precision: str = "fp32"
    target: str = ""
    meta: Json = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """What a runtime opens."""
        return self.root / self.main if self.main else self.root

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the first input insists on, or None when it is
        dynamic."""
        first = self.inputs[0].dims[0] if self.inputs and self.inputs[0].dims else 1
        return first if isinstance(first, int) else None

    @property
    def bytes(self) -> int:
        """Size on disk of all its files, in bytes."""
        return sum(file.stat().st_size for file in files_of(self.root))

    def weight(self) -> int:
        """Size in bytes of what is shipped: the main file with the data files it needs,
        or the whole bundle."""
        if not self.main:
            return self.bytes
        stem = self.path.name
        return sum(
            file.stat().st_size
            for file in self.root.iterdir()
            if file.is_file() and file.name in (stem, f"{stem}.data")
        )

    def sha256_of_main(self) -> str:
        """SHA-256 of the file that a runtime opens, or the digest of a bundle's
        files."""
        return sha256_file(self.path) if self.main else digest_of(hash_tree(self.root))

    def describe(self) -> Json:
        """What the store writes beside the files; everything but where they are."""
        data = asdict(self)
        del data["root"], data["digest"]
        return {**data, "format": str(self.format), "inputs": [spec.to_json() for spec in self.inputs]}

    @classmethod
    def from_description(cls, data: Any, root: Path, digest: str) -> Artifact:
        """The inverse, for files that lie below `root`. Raises `KeyError` or
        `TypeError` for what `describe` did not write."""
        fields = dict(data)
        for key in ("name", "main", "precision", "target"):
            if not isinstance(fields[key], str):
                raise TypeError(f"{key} is no text")
        if not isinstance(fields["meta"], dict):
            raise TypeError("meta is no mapping")
        fields["format"] = _format(str(fields["format"]))
        fields["inputs"] = tuple(TensorSpec.from_json(spec) for spec in fields["inputs"])
        return cls(root=root, digest=digest, **fields)


def files_of(root: Path) -> list[Path]:
    """Regular files below a directory, sorted by path; symbolic links are not
    followed."""
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(data: Any) -> str:
    """SHA-256 of a JSON value written canonically."""
    return hashlib.sha256(
        json.dumps(data, sort_keys=True, separators=(",", ":"), default=str).encode()
    ).hexdigest()


def digest_of(hashes: dict[str, str]) -> str:
    """The digest of a directory from its files' hashes."""
    return sha256_json(sorted(hashes.items()))


def hash_tree(root: Path) -> dict[str, str]:
    """Relative path to SHA-256, for every file below `root`."""
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files_of(root)}
