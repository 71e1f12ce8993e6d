"""The bundle: a module as a directory without pickle.

    model.json            how the dense module is rebuilt (factory, structure or
                          graph), and its input specs
    surgery.json          what was cut since, in order
    weights.safetensors   every parameter and buffer of the module as it is now

Loading rebuilds the dense module (on the meta device where that works), replays the
surgery, and loads the weights strictly.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mlopt.artifact import Json, TensorSpec
from mlopt.errors import ModelRefused, UsageError
from mlopt.model import graph, structure
from mlopt.model.allowlist import resolve_factory
from mlopt.model.origin import FactoryOrigin, GraphOrigin, Origin, StructureOrigin, check, parameter_names
from mlopt.model.origin import from_json as origin_from_json
from mlopt.model.surgery import Surgery, apply
from mlopt.model.tensors import canonical, holders, in_place_of, relink
from mlopt.model.trust import Trust

if TYPE_CHECKING:
    from pydantic import JsonValue

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """What a bundle knows besides its weights: how the dense module is rebuilt, what it
    takes, and what was cut since."""

    origin: Origin
    inputs: tuple[TensorSpec, ...]
    surgeries: tuple[Surgery, ...] = field(default=())
    sparse: tuple[str, ...] = ()
    """Weights whose zeros stay zeros when the module is trained further."""

    def cut(self, surgery: Surgery) -> Bundle:
        """The same bundle with one more surgery."""
        return replace(self, surgeries=(*self.surgeries, surgery))

    def after(self, module: nn.Module, surgery: Surgery) -> Bundle:
        """The bundle of a pruned module: one surgery more, or the module's own graph
        when the cut had to rewrite it."""
        if isinstance(module, torch.fx.GraphModule):
            return Bundle(
                origin_of(module),
                self.inputs,
                (),
                tuple(name for name in self.sparse if name in dict(module.named_parameters())),
            )
        return self.cut(surgery)


def origin_of(module: nn.Module) -> StructureOrigin | GraphOrigin:
    """How a live module is rebuilt without a factory: as a graph if it is one, else as
    the tree of its classes.

    Raises `PassFailed` for a module that holds what cannot be written as data.
    """
    if isinstance(module, torch.fx.GraphModule):
        return GraphOrigin(graph.describe(module))
    return StructureOrigin(structure.describe(module))


def write(directory: Path, module: nn.Module, bundle: Bundle) -> None:
    """Write a bundle into an existing directory (stage it: this is not atomic by
    itself).

    `module` is what `bundle` rebuilds, with the weights to keep.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in canonical(module).items()}
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    if len(set(storages)) < len(storages):  # views of one storage: safetensors refuses to write them
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors, directory / "weights.safetensors")
    inputs: list[JsonValue] = [spec.to_json() for spec in bundle.inputs]
    head: Json = {"schema_version": SCHEMA_VERSION, **bundle.origin.to_json(), "inputs": inputs}
    if isinstance(
        bundle.origin, FactoryOrigin
    ):  # the other origins say themselves which tensors are parameters
        head["parameters"] = [name for name, _ in module.named_parameters()]
    if bundle.sparse:
        head["sparse"] = list(bundle.sparse)
    (directory / "model.json").write_text(json.dumps(head, indent=1) + "\n")
    cuts = [surgery.to_json() for surgery in bundle.surgeries]
    (directory / "surgery.json").write_text(
        json.dumps({"schema_version": SCHEMA_VERSION, "surgeries": cuts}) + "\n"
    )


def read_head(directory: Path) -> Bundle:
    """The bundle without its weights. Imports nothing. Raises `ModelRefused`."""
    try:
        head = json.loads((directory / "model.json").read_text())
        cuts = json.loads((directory / "surgery.json").read_text())
        for data in (head, cuts):
            if data["schema_version"] > SCHEMA_VERSION:
                raise ModelRefused(
                    f"{directory} was written by a newer mlopt (schema {data['schema_version']})",
                    "upgrade mlopt",
                )
        inputs = tuple(TensorSpec.from_json(spec) for spec in head["inputs"])
        sparse = tuple(str(name) for name in head.get("sparse", ()))
        return Bundle(
            origin_from_json(head), inputs, tuple(Surgery(**data) for data in cuts["surgeries"]), sparse
        )
    except OSError as error:
        raise ModelRefused(
            f"{directory} is not a whole bundle: {error}",
            "a bundle holds model.json, surgery.json, weights.safetensors",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(
            f"{directory} is not a readable bundle: {error}", "write it again with mlopt"
        ) from error


def read(directory: Path, trust: Trust) -> tuple[nn.Module, Bundle]:
    """The module as it was written, in evaluation or training mode as it was, and its
    bundle. Raises `ModelRefused`."""
    bundle = read_head(directory)
    check(bundle.origin, trust, str(directory))
    try:
        weights = load_file(directory / "weights.safetensors")
    except (SafetensorError, OSError) as error:
        raise ModelRefused(
            f"{directory}/weights.safetensors cannot be read: {error}", "copy the bundle again"
        ) from error
    try:
        module = _dense(bundle, trust, meta=True)
        for surgery in bundle.surgeries:
            module = apply(module, surgery)
        fill(module, weights)
        if not _whole(module):
            raise RuntimeError("tensors outside parameters and buffers")
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        module = _dense(bundle, trust, meta=False)  # a constructor that computes with its tensors
        for surgery in bundle.surgeries:
            module = apply(module, surgery)
        try:
            fill(module, weights)
        except (RuntimeError, ValueError) as error:
            raise ModelRefused(
                f"{directory}: {error}", "the factory has changed since the bundle was written"
            ) from error
    return module, bundle


class Sizes(NamedTuple):
    """`parameters`: how many numbers the parameters hold, shared ones counted once,
    buffers left out; `bytes`: of the file of weights."""

    parameters: int
    bytes: int


def sizes(directory: Path, trust: Trust | None = None) -> Sizes:
    """Count a bundle without loading its weights.

    `trust` is needed only for a bundle of a factory that an mlopt before 0.2 wrote: it
    does not say which tensors are parameters, and is loaded. Raises `ModelRefused`.
    """
    path = directory / "weights.safetensors"
    names = _parameter_names(directory)
    try:
        size = path.stat().st_size
        if names is None:
            module, _ = read(directory, trust or Trust())
            return Sizes(sum(p.numel() for p in module.parameters()), size)
        with safe_open(path, "pt") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelRefused(f"{path} cannot be read: {error}", "copy the bundle again") from error
    return Sizes(sum(math.prod(shape) for name, shape in shapes.items() if name in names), size)


def _parameter_names(directory: Path) -> frozenset[str] | None:
    """The names of all parameters, those of the dense module and aliases among them;
    None where the bundle does not say.

    Pruning renames nothing, so a tensor of the pruned module is a parameter when it was
    one before.
    """
    origin = read_head(directory).origin
    if not isinstance(origin, FactoryOrigin):
        return parameter_names(origin)
    named = json.loads((directory / "model.json").read_text()).get("parameters")
    return None if named is None else frozenset(map(str, named))


def _dense(bundle: Bundle, trust: Trust, meta: bool) -> nn.Module:
    """The module before anything was cut. `meta`: a factory builds it on the meta
    device, without weights."""
    origin = bundle.origin
    if isinstance(origin, GraphOrigin):
        with torch.device("meta"):
            return graph.rebuild(origin.graph, "the bundle")
    if isinstance(origin, StructureOrigin):
        return structure.rebuild(origin.structure, trust)
    with torch.device("meta") if meta else contextlib.nullcontext():
        return call_factory(origin.factory, origin.arguments)


def call_factory(reference: str, arguments: Mapping[str, object]) -> nn.Module:
    """Build a module with a factory that the user named. Raises `UsageError`."""
    factory = resolve_factory(reference)
    try:
        module = factory(**arguments)
    except (NotImplementedError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise UsageError(
            f"{reference} raised {type(error).__name__}: {error}", "fix the factory or its --arch-arg values"
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{reference} returned a {type(module).__name__}, not an nn.Module",
            "name a factory that returns the model",
        )
    return module


def fill(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put tensors in place by name, strictly: every one must be there, in its shape and
    dtype. Raises `ValueError`."""
    wanted = canonical(module)
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or extra:
        raise ValueError(f"weights do not fit the module: missing {missing[:3]}, unexpected {extra[:3]}")
    new: dict[int, torch.Tensor] = {}
    for name, old in wanted.items():
        tensor = weights[name]
        if tensor.shape != old.shape or tensor.dtype != old.dtype:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} {tensor.dtype}, the module wants {tuple(old.shape)}"
                f" {old.dtype}"
            )
        # A copy in memory of its own: tensors mapped from a file lie at odd addresses,
        # and kernels round differently there.
        new[id(old)] = in_place_of(old, tensor.clone())
    for _, table, key, tensor in list(holders(module)):
        table[key] = new[id(tensor)]
    relink(module)


def _whole(module: nn.Module) -> bool:
    """Whether no tensor is left on the meta device, those in plain attributes
    included."""
    return not any(
        isinstance(value, torch.Tensor) and value.is_meta
        for child in module.modules()
        for value in vars(child).values()
    )
