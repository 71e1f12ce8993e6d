"""The head of a package: what `mlopt bench --package` writes about the files beside
it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlopt.artifact import TensorSpec
from mlopt.records.bench import Conditions
from mlopt.records.edge import Json
from mlopt.records.machine import Machine

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PackedInputs:
    """Inputs at one batch size; `inputs` is the member that holds them."""

    batch: int
    inputs: str


@dataclass(frozen=True, kw_only=True)
class PackedArtifact:
    """One artifact. `root`: the directory in the package where its files are; `main`:
    the file in it that a runtime opens (empty for a bundle); `digest`: of all its
    files."""

    name: str
    format: str
    main: str
    inputs: tuple[TensorSpec, ...]
    precision: str
    target: str = ""
    meta: Json = field(default_factory=dict)
    root: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class PackageHead:
    """What is in a package, and how it is to be measured. `environment`: where it was
    packed; `budget_s`: seconds of sampling for each batch size."""

    schema_version: int = SCHEMA_VERSION
    what: str = "mlopt bench package"
    environment: Machine
    conditions: Conditions
    budget_s: float
    shapes: tuple[PackedInputs, ...]
    artifacts: tuple[PackedArtifact, ...]
