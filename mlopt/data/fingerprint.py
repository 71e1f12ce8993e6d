"""One hash of what a data object holds, without reading it sample by sample where that
can be helped.

Every attribute is followed: tensors and arrays by their bytes, files and directories
that an attribute names by size and time of change, code by its source. An object that
cannot be looked into (a generator of C, an open file) is read sample by sample instead,
whole: what is not hashed could change unseen.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from mlopt.artifact import sha256_json
from mlopt.data.parts import Batch, Part
from mlopt.model.code import files_of_modules
from mlopt.model.tensors import raw_bytes

OWN_BATCH, FIRST = 256, 64
"""Samples that are read at once; and how many are read in any case."""
LONGEST_PATH, MOST_FILES = 4096, 100_000
"""A directory with more files than this is not looked through."""
NAMED = (type, types.ModuleType, types.BuiltinFunctionType, np.ufunc, torch.dtype, torch.device, np.dtype)
"""What its name says all about."""


class _Opaque(Exception):
    """An object that cannot be looked into."""


def fingerprint_of(part: Part) -> str:
    """SHA-256 of everything that decides what a part of the data gives. Raises
    `DataError` for a part that is empty or cannot be read."""
    first = _of_samples([part.take(FIRST)])
    try:
        seen = _Content()
        seen.add(part.source)
        content = seen.finished()
    except (_Opaque, RecursionError):
        content = _of_samples(part.batches(OWN_BATCH))
    return sha256_json([content, first])


def _of_samples(batches: Iterable[Batch]) -> str:
    """SHA-256 of samples as they are given."""
    digest = hashlib.sha256()
    for inputs, target in batches:
        for tensor in (*inputs, *([] if target is None else [target])):
            digest.update(_tensor_bytes(tensor))
    return digest.hexdigest()


def _tensor_bytes(tensor: torch.Tensor) -> bytes:
    return f"{tensor.dtype} {tuple(tensor.shape)}".encode() + raw_bytes(tensor)


class _Content:
    """Walks an object and hashes what it holds. Each object once: references may go in
    circles."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._numbers: dict[int, int] = {}
        self._keep: list[Any] = []
        self._modules: set[str] = set()

    def finished(self) -> str:
        """The hash of all that was added, and of the code that it runs."""
        self._word("code", sorted(files_of_modules(self._modules).items()))
        return self.digest.hexdigest()

    def _word(self, *words: object) -> None:
        self.digest.update(("\0".join(map(str, words)) + "\1").encode())

    def add(self, value: Any) -> None:
        """Hash one value and all that it refers to. Raises `_Opaque`."""
        if value is None or isinstance(value, (bool, int, float, complex, bytes, bytearray)):
            self._word(type(value).__name__, value)
        elif isinstance(value, (str, Path)):
            self._text(value)
        elif isinstance(value, NAMED):
            self._word("named", getattr(value, "__module__", ""), getattr(value, "__qualname__", value))
        elif id(value) in self._numbers:
            self._word("again", self._numbers[id(value)])
        else:
            self._numbers[id(value)] = len(self._numbers)
            self._keep.append(value)  # its id must stay its own
            self._object(value)

    def _object(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if value.device.type == "meta" or value.layout != torch.strided:
                raise _Opaque
            self.digest.update(_tensor_bytes(value))
        elif isinstance(value, np.memmap) and value.filename is not None:
            self._word(value.dtype, value.shape, value.offset)
            self._text(str(value.filename))
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._word(value.dtype, value.shape)
            self.digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, Mapping):
            self._all("mapping", [item for pair in value.items() for item in pair])
        elif isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
            self._all(type(value).__name__, list(value))
        elif isinstance(value, (set, frozenset)):
            self._all("set", sorted(value, key=repr))
        elif isinstance(value, range):
            self._word(value)
        elif isinstance(value, DataLoader):
            self._loader(value)
        elif isinstance(value, torch.Generator):
            self._word("generator", value.initial_seed())
        elif isinstance(value, functools.partial):
            self._all("partial", [value.func, value.args, value.keywords])
        elif isinstance(value, (types.FunctionType, types.MethodType)):
            self._function(value)
        else:
            self._instance(value)

    def _loader(self, value: DataLoader[Any]) -> None:
        """What it reads and in which order. How it does so (workers, pinned memory) is
        its own affair."""
        order = [value.sampler, value.batch_sampler]
        self._all("loader", [value.dataset, value.batch_size, value.drop_last, value.collate_fn, *order])

    def _all(self, kind: str, items: Iterable[Any]) -> None:
        listed = list(items)
        self._word(kind, len(listed))
        for item in listed:
            self.add(item)

    def _text(self, value: str | Path) -> None:
        """A text; where it names a file or a directory, also what lies there, by size
        and time of change."""
        self._word("text", value)
        path = Path(value)
        if len(str(value)) > LONGEST_PATH or "\0" in str(value) or not str(value):
            return
        try:
            files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else ()
            found = list(itertools.islice(files, MOST_FILES + 1))
            if len(found) > MOST_FILES:
                raise _Opaque
            for file in sorted(found):
                state = file.stat()
                self._word(file, state.st_size, state.st_mtime_ns)
        except OSError:
            self._word("unreadable")

    def _function(self, value: types.FunctionType | types.MethodType) -> None:
        function = value.__func__ if isinstance(value, types.MethodType) else value
        self._word("function", function.__module__, function.__qualname__)
        self._modules.add(function.__module__)
        self._word(_described(function.__code__))  # a module may hold many, one of a script has no file
        self._all("defaults", [function.__defaults__, function.__kwdefaults__])
        self._all("cells", [cell.cell_contents for cell in function.__closure__ or ()])
        if isinstance(value, types.MethodType):
            self.add(value.__self__)

    def _instance(self, value: Any) -> None:
        kind = type(value)
        if not hasattr(value, "__dict__") or kind.__module__ in ("builtins", "_io"):
            raise _Opaque
        self._word("object", kind.__module__, kind.__qualname__)
        self._modules |= {base.__module__ for base in kind.__mro__}
        self._all("attributes", [item for pair in sorted(vars(value).items()) for item in pair])


def _described(code: types.CodeType) -> str:
    """What a function does, without where it stands: its instructions, and the names
    and constants that they use, those of functions inside it too."""
    constants = [
        _described(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts
    ]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))
