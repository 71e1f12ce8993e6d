"""Module to ONNX file, through `torch.export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mlopt.artifact import TensorSpec
from mlopt.errors import BackendMissing, PassFailed, first_line
from mlopt.model.capture import capturable
from mlopt.model.inputs import dynamic_shapes, fixed, synthetic
from mlopt.model.tensors import canonical
from mlopt.system.quiet import quiet

INLINE_LIMIT = 1_900_000_000
"""Bytes of weights above which they go beside the file: a protobuf cannot exceed 2
GiB."""


@dataclass(frozen=True)
class OnnxExport:
    """What was written. `inputs`: the signature that the file has; `why_fixed`: why
    dynamic dimensions were given up, or empty."""

    inputs: tuple[TensorSpec, ...]
    why_fixed: str


def export_onnx(module: nn.Module, specs: tuple[TensorSpec, ...], path: Path, opset: int) -> OnnxExport:
    """Write a module (in evaluation mode, without gradients) as ONNX; where dynamic
    dimensions are refused, at the fixed shape.

    Raises `BackendMissing`, or `PassFailed` with the exporter's own words.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BackendMissing("onnx", "pip install 'mlopt[onnx]'") from error
    try:
        _write(module, specs, path, opset)
        return OnnxExport(specs, "")
    except Exception as error:  # torch.export and the exporter raise their own many kinds
        if dynamic_shapes(specs) is None:
            raise _refused(error) from error
        why = (
            f"dynamic dimensions were refused ({first_line(error)}); exported at"
            f" {'; '.join(map(str, fixed(specs)))}"
        )
    try:
        _write(module, fixed(specs), path, opset)
    except Exception as error:
        raise _refused(error) from error
    return OnnxExport(fixed(specs), why)


def _refused(error: Exception) -> PassFailed:
    line = first_line(error)
    return PassFailed(
        f"the model cannot be exported to ONNX: {type(error).__name__}: {line}",
        "look at the operator it names",
    )


def _write(module: nn.Module, specs: tuple[TensorSpec, ...], path: Path, opset: int) -> None:
    import onnx

    with quiet(), capturable(module), torch.no_grad():
        program = torch.onnx.export(
            module,
            synthetic(specs),
            dynamo=True,
            opset_version=opset,
            input_names=[spec.name for spec in specs],
            dynamic_shapes=dynamic_shapes(specs),
            verbose=False,
        )
    assert program is not None
    size = sum(tensor.numel() * tensor.element_size() for tensor in canonical(module).values())
    # The exporter's metadata holds stack traces with paths of this machine: the file
    # would differ from place to place.
    for node in (
        program.model.graph.all_nodes() if hasattr(program.model.graph, "all_nodes") else program.model.graph
    ):
        node.metadata_props.clear()
    for value in program.model.graph.inputs:
        value.metadata_props.clear()
    for value in program.model.graph.initializers.values():
        value.metadata_props.clear()
    program.model.metadata_props.clear()
    program.model.graph.metadata_props.clear()
    program.save(str(path), external_data=size > INLINE_LIMIT)
    onnx.checker.check_model(str(path))
