"""Reading a PyTorch pickle without running it.

A pickle is a program: it names globals and calls them. Here every global becomes a
stand-in that only writes down what it was called with. So the whole file can be read,
and every name in it listed, before anything is decided; nothing outside this module is
imported or called. `build.py` then turns the description into objects, for names that
are allowed.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mlopt.errors import ModelRefused

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE_BYTES = 64 * 1024 * 1024
"""The object graph of a model without its tensors; the largest seen are a few MB."""


class Inert:
    """The description of one call in a pickle: the global, its arguments, and the state
    that was set on the result."""

    module = ""
    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        made = object.__new__(cls)
        made.__dict__.update(args=args, kwargs=kwargs, state=None, items=[], entries=[])
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def append(self, item: Any) -> None:
        self.__dict__["items"].append(item)

    def extend(self, items: Any) -> None:
        self.__dict__["items"].extend(items)

    def add(self, item: Any) -> None:
        self.__dict__["items"].append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__["entries"].append((key, value))


@dataclass(frozen=True)
class Storage:
    """A reference to raw tensor bytes: dtype name, key in the archive, number of
    elements."""

    dtype: str
    key: str
    numel: int


@dataclass
class Document:
    """The content of a file that was read and not run. `globals`: every name in it, in
    order."""

    root: Any
    globals: list[str]
    storage: Callable[[str], Any] = field(repr=False)
    """Bytes of a storage, by its key, as a flat uint8 tensor."""
    big_endian: bool = False


class _Reader(pickle.Unpickler):
    def __init__(self, stream: Any, names: dict[str, type[Inert]]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # how protocol 2 writes it
        full = f"{module}.{name}"
        if full not in self._names:
            self._names[full] = type(
                name.rpartition(".")[2] or "x", (Inert,), {"module": module, "name": name}
            )
        return self._names[full]

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] in ("module", b"module"):
            return pid[1]  # the legacy format sends classes this way, with their source beside them
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage"):
            raise pickle.UnpicklingError("an unknown persistent id")
        kind, key, numel = pid[1], pid[2], pid[4]
        dtype = kind.name if isinstance(kind, type) and issubclass(kind, Inert) else ""
        return Storage(dtype, str(key), int(numel))


def _load(stream: Any, names: dict[str, type[Inert]], path: Path) -> Any:
    try:
        return _Reader(stream, names).load()
    except (RecursionError, MemoryError) as error:
        raise ModelRefused(f"{path}: the pickle in it is nested too deeply or too large to read") from error
    except Exception as error:  # a broken pickle can raise anything at all; none of it ran
        raise ModelRefused(
            f"{path} is not a readable PyTorch file: {error}", "is it a complete .pt or .safetensors file?"
        ) from error


def kind_of(path: Path) -> str:
    """What a file is, by its bytes: `onnx`, `safetensors`, `torchscript`, `pt2`,
    `pickle`, `legacy`, or `unknown`.

    Raises `ModelRefused` for a damaged archive.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise ModelRefused(f"{path}: {error.strerror}", "check the path") from error
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.partition("/")[2] for name in archive.namelist()]
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise ModelRefused(
                f"{path} is a damaged or truncated archive: {error}", "copy or save the file again"
            ) from error
        if "constants.pkl" in names:
            return "torchscript"
        if any(name == "archive_format" or name.startswith("models/") for name in names):
            return "pt2"
        return "pickle" if "data.pkl" in names else "unknown"
    if len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**32:
        return "safetensors"
    if path.suffix == ".onnx":
        return "onnx"
    return "legacy" if head[:1] == b"\x80" else "unknown"


def read(path: Path) -> Document:
    """Read a `torch.save` file (zip or legacy) without running it. Raises
    `ModelRefused`."""
    return _read_zip(path) if kind_of(path) == "pickle" else _read_legacy(path)


def _read_zip(path: Path) -> Document:
    archive = zipfile.ZipFile(path)
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    size = path.stat().st_size
    for info in members.values():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise ModelRefused(
                f"{path}: '{info.filename}' is compressed, which torch.save never does",
                "refused as a decompression bomb",
            )
    if members["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise ModelRefused(
            f"{path}: its object graph is {members['data.pkl'].file_size} bytes, which no model needs"
        )
    names: dict[str, type[Inert]] = {}
    root = _load(io.BytesIO(archive.read(members["data.pkl"])), names, path)

    def storage(key: str) -> torch.Tensor:
        info = members.get(f"data/{key}")
        if info is None:
            raise ModelRefused(f"{path}: the bytes of tensor storage '{key}' are missing")
        try:
            return _aligned(archive.read(info))
        except zipfile.BadZipFile as error:
            raise ModelRefused(
                f"{path}: tensor storage '{key}' is damaged ({error})", "copy or save the file again"
            ) from error

    order = archive.read(members["byteorder"]).strip() if "byteorder" in members else b"little"
    return Document(root, list(names), storage, order == b"big")


def _read_legacy(path: Path) -> Document:
    """The format before PyTorch 1.6: five pickles in a row, then the raw storages, each
    after its element count."""
    names: dict[str, type[Inert]] = {}
    with path.open("rb") as stream:
        if _load(stream, names, path) != LEGACY_MAGIC:
            raise ModelRefused(
                f"{path} is a pickle, but not one that torch.save wrote", "save the model with torch.save"
            )
        for _ in range(2):
            _load(stream, names, path)
        root = _load(stream, names, path)
        keys = _load(stream, names, path)
        start = stream.tell()
        data = path.read_bytes()[start:]
    sizes = _storage_dtypes(root)
    offsets: dict[str, tuple[int, int]] = {}
    at = 0
    for key in keys if isinstance(keys, list) else []:
        if at + 8 > len(data) or str(key) not in sizes:
            raise ModelRefused(f"{path} is truncated", "copy or save the file again")
        (numel,) = struct.unpack_from("<q", data, at)
        width = element_size(sizes[str(key)])
        if numel < 0 or at + 8 + numel * width > len(data):
            raise ModelRefused(f"{path} is truncated", "copy or save the file again")
        offsets[str(key)] = (at + 8, numel * width)
        at += 8 + numel * width

    def storage(key: str) -> torch.Tensor:
        if key not in offsets:
            raise ModelRefused(f"{path}: the bytes of tensor storage '{key}' are missing")
        begin, size = offsets[key]
        return _aligned(data[begin : begin + size])

    return Document(root, list(names), storage)


def _aligned(data: bytes) -> torch.Tensor:
    """Bytes in memory that torch aligned: kernels round differently at odd
    addresses."""
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bytes are read-only, and only read
        return torch.frombuffer(data, dtype=torch.uint8).clone()


DTYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


def element_size(storage_name: str) -> int:
    """Bytes an element of a storage class takes. Raises `ModelRefused` for one that is
    not known."""
    if storage_name not in DTYPES:
        raise ModelRefused(f"tensor storage of type '{storage_name}' is not supported")
    return DTYPES[storage_name].itemsize


def _storage_dtypes(root: Any) -> dict[str, str]:
    """Every storage that the object graph refers to: key to storage class name."""
    out: dict[str, str] = {}
    seen: set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, Storage):
            out[value.key] = value.dtype
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Inert):
            stack += [
                value.__dict__["args"],
                value.__dict__["state"],
                value.__dict__["items"],
                value.__dict__["entries"],
            ]
        elif isinstance(value, dict):
            stack += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack += list(value)
    return out
