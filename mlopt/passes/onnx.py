"""`onnx`: module to ONNX file, through `torch.export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from mlopt import recipe
from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.context import RunContext
from mlopt.errors import BackendMissing, PassFailed, first_line
from mlopt.model import bundle
from mlopt.model.capture import plainly
from mlopt.model.inputs import dynamic_shapes, fixed, synthetic
from mlopt.passes.base import PassResult
from mlopt.quiet import quiet

FILE = "model.onnx"
INLINE_LIMIT = 1_900_000_000
"""Bytes of weights above which they go beside the file: a protobuf cannot exceed 2 GiB."""


@dataclass(frozen=True)
class OnnxPass:
    config: recipe.Onnx
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.ONNX
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise BackendMissing("onnx", "pip install 'mlopt[onnx]'") from error
        module, _ = bundle.read(artifact.path, run.trust)
        module.eval().requires_grad_(False)
        specs, why = artifact.inputs, ""
        try:
            self._export(module, specs, stage / FILE)
        except Exception as error:  # torch.export and the exporter raise their own many kinds
            line = first_line(error)
            if dynamic_shapes(specs) is None:
                raise PassFailed(f"the model cannot be exported to ONNX: {type(error).__name__}: {line}", "look at the operator it names") from error
            specs, why = fixed(specs), f"dynamic dimensions were refused ({line}); exported at {'; '.join(map(str, fixed(specs)))}"
            try:
                self._export(module, specs, stage / FILE)
            except Exception as again:
                line = first_line(again)
                raise PassFailed(f"the model cannot be exported to ONNX: {type(again).__name__}: {line}", "look at the operator it names") from again
        made = Artifact(FILE, Format.ONNX, stage, FILE, "", specs)
        shape = "dynamic " + ", ".join(sorted({d for s in specs for d in s.dims if isinstance(d, str)})) if dynamic_shapes(specs) else "fixed shape"
        return PassResult(made, {"opset": self.config.opset, "why_fixed": why, "summary": f"opset {self.config.opset}, {shape}"})

    def _export(self, module: nn.Module, specs: tuple[TensorSpec, ...], path: Path) -> None:
        import onnx

        with quiet(), plainly(module), torch.no_grad():
            program = torch.onnx.export(
                module,
                synthetic(specs),
                dynamo=True,
                opset_version=self.config.opset,
                input_names=[spec.name for spec in specs],
                dynamic_shapes=dynamic_shapes(specs),
                verbose=False,
            )
        assert program is not None
        size = sum(tensor.numel() * tensor.element_size() for tensor in bundle.canonical(module).values())
        # Stack traces of this machine's source files are in the exporter's metadata: they say where it was made, and change with it.
        for node in program.model.graph.all_nodes() if hasattr(program.model.graph, "all_nodes") else program.model.graph:
            node.metadata_props.clear()
        for value in program.model.graph.inputs:
            value.metadata_props.clear()
        for value in program.model.graph.initializers.values():
            value.metadata_props.clear()
        program.model.metadata_props.clear()
        program.model.graph.metadata_props.clear()
        program.save(str(path), external_data=size > INLINE_LIMIT)
        onnx.checker.check_model(str(path))
