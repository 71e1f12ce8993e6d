"""How a bundle's dense module is rebuilt: by calling a factory, from the tree of its
classes, or from its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlopt.artifact import Json
from mlopt.errors import ModelRefused
from mlopt.model import structure
from mlopt.model.graph_data import GraphData
from mlopt.model.structure_data import Structure
from mlopt.model.trust import Trust


@dataclass(frozen=True)
class FactoryOrigin:
    """`factory` (`package.module:factory`) is called with `arguments`, which are plain
    JSON values."""

    factory: str
    arguments: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> Json:
        """As it stands in `model.json`, beside what else is there."""
        arguments: Any = dict(self.arguments)
        return {"factory": self.factory, "arguments": arguments}


@dataclass(frozen=True)
class StructureOrigin:
    """The module's classes with their attributes; no constructor is called."""

    structure: Structure

    def to_json(self) -> Json:
        """As it stands in `model.json`, beside what else is there."""
        return {"structure": self.structure.to_json()}


@dataclass(frozen=True)
class GraphOrigin:
    """A graph of ATen operators (`graph.describe`): no class of the user's is
    needed."""

    graph: Json

    def to_json(self) -> Json:
        """As it stands in `model.json`, beside what else is there."""
        return {"graph": self.graph}


Origin = FactoryOrigin | StructureOrigin | GraphOrigin


def from_json(head: Any) -> Origin:
    """The origin that a `model.json` names. Imports nothing. Raises `KeyError` and the
    like for one that names none."""
    if "factory" in head:
        return FactoryOrigin(str(head["factory"]), dict(head.get("arguments", {})))
    if "structure" in head:
        return StructureOrigin(Structure.from_json(head["structure"]))
    return GraphOrigin(dict(head["graph"]))


def check(origin: Origin, trust: Trust, where: str) -> None:
    """Refuse code that nobody allowed, before any of it is imported. `where`: what the
    message calls the bundle.

    Raises `ModelRefused` with the flags that would allow it.
    """
    if isinstance(origin, FactoryOrigin):
        reference = origin.factory
        if trust.arch != reference and not trust.named(reference.replace(":", ".")):
            raise ModelRefused(
                f"{where} is rebuilt by calling {reference}", f"if you trust it: --arch {reference}"
            )
    elif isinstance(origin, StructureOrigin):
        structure.check(origin.structure, trust, where)


def parameter_names(origin: Origin) -> frozenset[str] | None:
    """Every name that a parameter has in the dense module, aliases included; None where
    only the factory knows."""
    if isinstance(origin, StructureOrigin):
        return origin.structure.parameter_names()
    if isinstance(origin, GraphOrigin):
        return GraphData.from_json(origin.graph).parameter_names()
    return None
