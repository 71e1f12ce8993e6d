"""What a model is, what can be pruned in it, and what each runtime will say to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mlopt.artifact import Format
from mlopt.checking.accuracy import score
from mlopt.data.sets import load_data
from mlopt.errors import MloptError, UsageError
from mlopt.model.inputs import check_runs, infer, parse_spec, synthetic
from mlopt.model.outputs import logits_of
from mlopt.model.sources import Source, open_model
from mlopt.model.tensors import canonical
from mlopt.model.trust import Trust
from mlopt.pruning.pruner import Pruner, analyse
from mlopt.pruning.sensitivity import Sensitivity, measure

MAX_LAYERS = 400
ROUND_TO = 8
"""Multiples in which widths are cut by default."""


@dataclass(frozen=True)
class Layer:
    """A module that has parameters of its own."""

    path: str
    class_: Annotated[str, Field(alias="class")]
    params: int


@dataclass(frozen=True)
class Prunable:
    """A width of the network, in indices; `unit` of them go together."""

    name: str
    width: int
    unit: int
    prunable: bool


@dataclass(frozen=True)
class ModuleDescription:
    """What a module is. `macs` of one sample, None where it cannot be captured, for
    `prunable_reason`; `runtimes`: what is known to matter before exporting."""

    kind: str
    class_: Annotated[str, Field(alias="class")]
    sha256: str
    input: tuple[str, ...]
    params: int
    bytes: int
    prunings: int
    layers: tuple[Layer, ...]
    runtimes: dict[str, str]
    macs: float | None = None
    prunable: tuple[Prunable, ...] = ()
    unknown_operators: dict[str, int] = field(default_factory=dict)
    prunable_reason: str = ""


@dataclass(frozen=True)
class FileDescription:
    """What a file is that is only run."""

    kind: str
    sha256: str
    bytes: int | None
    opset: int | None = None
    input: tuple[str, ...] = ()
    operators: dict[str, int] = field(default_factory=dict)


def inspect_model(text: str, trust: Trust, input: tuple[str, ...]) -> ModuleDescription | FileDescription:
    """What a model is. Raises what loading raises; a model that cannot be captured is
    still described, with the reason."""
    source = open_model(text, trust)
    if source.module is None or source.bundle is None:
        return _file(source)
    module = source.module.eval()
    specs = tuple(parse_spec(item, i) for i, item in enumerate(input)) or source.inputs or infer(module)
    check_runs(module, specs)
    tensors = canonical(module)
    parameters = {name for name, _ in module.named_parameters()}
    known = ModuleDescription(
        source.kind,
        type(module).__name__,
        source.sha256,
        tuple(map(str, specs)),
        sum(tensor.numel() for name, tensor in tensors.items() if name in parameters),
        sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        len(source.bundle.surgeries),
        _layers(module),
        _runtimes(module),
    )
    try:
        found = analyse(module, synthetic(specs))
    except MloptError as error:
        return replace(known, prunable_reason=error.message)
    widths = tuple(
        Prunable(g.name, len(g.classes) * g.unit, g.unit, len(g.classes) > g.step(ROUND_TO))
        for g in found.groups
    )
    macs = found.counter().whole().macs
    return replace(known, macs=macs, prunable=widths, unknown_operators=dict(found.flow.unknown))


SENSITIVITY_SAMPLES = 512


def sensitivity(text: str, trust: Trust, input: tuple[str, ...], data: str | None) -> Sensitivity:
    """What each width of a model costs when it alone is narrowed: accuracy where `data`
    has labels, else the change of the output.

    Raises what loading raises, and `UsageError` for a file that is no module.
    """
    source = open_model(text, trust)
    if source.module is None:
        raise UsageError(
            f"{text} is not a PyTorch module: its widths cannot be masked",
            "give the module that it was exported from",
        )
    module = source.module.eval()
    specs = tuple(parse_spec(item, i) for i, item in enumerate(input)) or source.inputs
    loaded = load_data(data, specs) if data is not None else None
    part = (loaded.evaluation or loaded.any_part()) if loaded is not None else None
    inputs, target = (
        part.take(SENSITIVITY_SAMPLES) if part is not None else (synthetic(specs or infer(module)), None)
    )

    def outputs(module: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            chunks = [tuple(x[at : at + 64] for x in inputs) for at in range(0, len(inputs[0]), 64)]
            return torch.cat([logits_of(module(*chunk)) for chunk in chunks])

    dense = outputs(module)
    pruner = Pruner(module, tuple(x[:2] for x in inputs))
    if target is None:
        scale = dense.norm().clamp_min(1e-30)
        return measure(
            "output change, %",
            pruner,
            lambda changed: 100.0 * float((outputs(changed) - dense).norm() / scale),
        )
    return measure(
        f"{score(dense, target)[0]}, %", pruner, lambda changed: score(outputs(changed), target)[1]
    )


def _file(source: Source) -> FileDescription:
    known = FileDescription(source.kind, source.sha256, source.path.stat().st_size if source.path else None)
    if source.format != Format.ONNX or source.path is None:
        return known
    from mlopt.model.onnx_file import check_onnx, input_specs

    model = check_onnx(source.path)
    kinds = Counter(node.op_type for node in model.graph.node)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    return replace(
        known, opset=opset, input=tuple(map(str, input_specs(model))), operators=dict(kinds.most_common())
    )


def _layers(module: nn.Module) -> tuple[Layer, ...]:
    counted = (
        (path, child, sum(p.numel() for p in child.parameters(recurse=False)))
        for path, child in module.named_modules()
    )
    return tuple(Layer(path, type(child).__name__, own) for path, child, own in counted if own)[:MAX_LAYERS]


def _runtimes(module: nn.Module) -> dict[str, str]:
    """What is known to matter before exporting; empty lines mean nothing does."""
    classes = {type(child) for child in module.modules()}
    says = {
        "onnx": "exports through torch.export",
        "torchscript": "scripted, or traced where scripting fails",
        "tensorrt": "from the ONNX file",
    }
    if any(issubclass(kind, nn.RNNBase) for kind in classes):
        says["tensorrt"] = "recurrent layers are unrolled: long sequences make large engines"
    if any(issubclass(kind, nn.MultiheadAttention) for kind in classes):
        says["int8 on cpu"] = (
            "only matrix products are quantized: residual sums and normalisations would lose accuracy"
        )
    widths = [c.out_channels for c in module.modules() if isinstance(c, nn.Conv2d) and c.out_channels % 8]
    if widths:
        says["int8"] = (
            f"{len(widths)} convolutions have widths that are no multiple of 8 ({sorted(set(widths))[:4]}):"
            " kernels pad them"
        )
    return says
