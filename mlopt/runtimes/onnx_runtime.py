"""ONNX Runtime, on the CPU or on CUDA. This module does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import BackendMissing, UsageError, first_line
from mlopt.runtimes.base import Arrays

INSTALL = "pip install 'mlopt[cpu]'"


def ort() -> Any:
    """The onnxruntime package. Raises `BackendMissing`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendMissing("onnxruntime", INSTALL) from error
    return onnxruntime


def session_options(threads: int, precision: str) -> tuple[Any, list[str]]:
    """(options, optimizers to disable).

    Half-precision graphs stop below ORT_ENABLE_ALL, where ONNX Runtime 1.31 crashes on some of them (onnxruntime#26717), and without
    WeightBiasQuantization, which corrupts half-precision Q/DQ silently.
    """
    runtime = ort()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if precision == "fp16":
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        return options, ["WeightBiasQuantization"]
    return options, []


class OnnxRuntime:
    """One session. Raises `UsageError` when ONNX Runtime silently chose another provider than the one asked for."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int, device: str, precision: str) -> None:
        runtime = ort()
        options, disabled = session_options(threads, precision)
        wanted = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        providers = [wanted] if wanted == "CPUExecutionProvider" else [wanted, "CPUExecutionProvider"]
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers, disabled_optimizers=disabled)
        except Exception as error:  # onnxruntime raises its own many kinds
            line = first_line(error)[:300]
            raise UsageError(f"ONNX Runtime cannot load {path.name}: {line}", "look at the node it names with `mlopt view`") from error
        self.provider = self._session.get_providers()[0]
        if self.provider != wanted:
            raise UsageError(f"asked ONNX Runtime for {wanted}, it chose {self.provider}", "pip install onnxruntime-gpu and a CUDA driver")
        self.device = "cuda" if device == "cuda" else "cpu"
        self._names = [value.name for value in self._session.get_inputs()]

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        outputs = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        return [np.asarray(output) for output in outputs]


def int8_operators(path: Path, scratch: Path) -> dict[str, int]:
    """How many matrix operators ONNX Runtime really runs in int8, and how many it leaves in float, in its own optimised graph."""
    import onnx

    options, _ = session_options(1, "int8")
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    ort().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(scratch / "optimised.onnx"), load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    return {
        "int8": sum(
            kind in ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "QLinearGemm") or kind.startswith("MatMulIntegerTo")
            for kind in kinds
        ),
        "float": sum(kind in ("Conv", "MatMul", "Gemm", "FusedConv", "FusedGemm", "FusedMatMul") for kind in kinds),
    }
