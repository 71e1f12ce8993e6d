"""Under which key the store remembers what a pass gave: everything that its result
depends on."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass

from mlopt import __version__
from mlopt.artifact import sha256_json
from mlopt.measuring.environment import PACKAGES, version_of
from mlopt.records.edge import Json


@dataclass(frozen=True)
class ActionKey:
    """What a pass is asked to do, and with what.

    `input`: digest of the artifact; `inputs`: its signature; `dense`: digest of the
    module that the run started from; `code`: hash of the sources of the module's own
    classes and of its factory's module, since `forward` is not among the weights;
    `data`: fingerprint of the data; `files`: hashes of what else the pass reads;
    `samples`: how many the check runs on, whose result is remembered too. `nproc` is 1
    for what does not train; `threads` and `machine` are None for what does not
    measure or is not bound to a machine.
    """

    pass_: str
    version: int
    config: Json
    input: str
    inputs: tuple[str, ...]
    dense: str
    data: str
    code: str
    seed: int
    device: str
    nproc: int
    threads: int | None
    machine: str | None
    files: tuple[str, ...]
    samples: int
    versions: tuple[tuple[str, str | None], ...]

    def digest(self) -> str:
        """SHA-256 of all of it, in hex."""
        return sha256_json(asdict(self))


EXPORTERS = ("onnxscript", "onnx-ir", "onnxconverter-common", "safetensors", "ml_dtypes", "transformers")
"""Packages that decide what is written, beside those that run it."""


def installed_versions() -> tuple[tuple[str, str | None], ...]:
    """The versions of mlopt, of Python, and of the packages whose results it keeps."""
    own = (("mlopt", __version__), ("python", platform.python_version()))
    return (*own, *((name, version_of(name)) for name in (*PACKAGES, *EXPORTERS)))
