"""ONNX Runtime, on the CPU or on CUDA. This module does not import torch."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import BackendMissing, UsageError, first_line
from mlopt.runtimes.base import Arrays, Call, OpenOptions

if TYPE_CHECKING:
    from mlopt.records.bench import Operator

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

    Half-precision graphs stop below ORT_ENABLE_ALL, where ONNX Runtime 1.31 crashes on
    some of them (onnxruntime#26717), and without WeightBiasQuantization, which corrupts
    half-precision Q/DQ silently.
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
    """One session. Raises `UsageError` when ONNX Runtime silently chose another
    provider than the one asked for."""

    name = "onnxruntime"
    precision = None  # a profile says what each node ran in

    def __init__(self, options: OpenOptions) -> None:
        runtime = ort()
        self._path, self._options, device = options.path, options, options.device
        wanted = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        if options.cuda_graph and device != "cuda":
            raise UsageError("CUDA graphs need --device cuda")
        first: Any = (wanted, {"enable_cuda_graph": "1"}) if options.cuda_graph else wanted
        self._providers = [first] if wanted == "CPUExecutionProvider" else [first, "CPUExecutionProvider"]
        settings, disabled = session_options(options.threads, options.precision)
        try:
            self._session = runtime.InferenceSession(
                str(self._path), settings, providers=self._providers, disabled_optimizers=disabled
            )
        except Exception as error:  # onnxruntime raises its own many kinds
            line = first_line(error)[:300]
            raise UsageError(
                f"ONNX Runtime cannot load {self._path.name}: {line}",
                "look at the node it names with `mlopt view`",
            ) from error
        self.provider = self._session.get_providers()[0]
        if self.provider != wanted:
            raise UsageError(
                f"asked ONNX Runtime for {wanted}, it chose {self.provider}",
                "pip install onnxruntime-gpu and a CUDA driver",
            )
        self.device = "cuda" if device == "cuda" else "cpu"
        self._names = [value.name for value in self._session.get_inputs()]

    def _feed(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return dict(zip(self._names, inputs, strict=True))

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        return [np.asarray(output) for output in self._session.run(None, self._feed(inputs))]

    def bind(self, inputs: Arrays, copies: bool, graph: bool) -> Call:
        if copies and not graph:
            return partial(self._session.run, None, self._feed(inputs))
        binding = self._session.io_binding()
        for name, array in self._feed(inputs).items():
            binding.bind_ortvalue_input(
                name, ort().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, 0)
            )
        for output in self._session.get_outputs():
            binding.bind_output(output.name, self.device)
        return partial(self._session.run_with_iobinding, binding)  # returns when the device is done

    def profile(self, inputs: Arrays, calls: int) -> list[Operator]:
        """ONNX Runtime's own profile of a second session: the nodes of its optimised
        graph, and the provider that really ran each."""
        settings, disabled = session_options(self._options.threads, self._options.precision)
        with tempfile.TemporaryDirectory(prefix="mlopt-profile-") as scratch:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(scratch) / "profile")
            session = ort().InferenceSession(
                str(self._path), settings, providers=self._providers, disabled_optimizers=disabled
            )
            feed = self._feed(inputs)
            for _ in range(calls + WARM_CALLS):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text())
        return operators_of(events, calls)


WARM_CALLS = 3
PRECISIONS = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8",
    "uint8": "int8",
    "double": "fp64",
}


def operators_of(events: list[Any], calls: int) -> list[Operator]:
    """The operators in ONNX Runtime's trace: the mean of the last `calls` runs of each
    node, the slowest node first.

    A node's precision is the narrowest type among its inputs that have one: an integer
    convolution also takes float scales. `events`: Chrome's trace format, as ONNX
    Runtime writes it.
    """
    from mlopt.records.bench import Operator

    spent: dict[str, list[float]] = {}
    about: dict[str, Any] = {}  # ONNX Runtime's own arguments of an event
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name = event["name"].removesuffix("_kernel_time")
        spent.setdefault(name, []).append(event["dur"] * 1e-6)
        about[name] = event["args"]
    rows = []
    for name, seconds in spent.items():
        inputs = about[name].get("input_type_shape", [])
        types = {PRECISIONS[kind] for entry in inputs for kind in entry if kind in PRECISIONS}
        rows.append(
            Operator(
                name,
                kind=about[name]["op_name"],
                provider=about[name].get("provider", "").removesuffix("ExecutionProvider"),
                precision=next(
                    (kind for kind in ("int8", "fp16", "bf16", "fp32", "fp64") if kind in types), None
                ),
                seconds=sum(seconds[-calls:]) / max(1, len(seconds[-calls:])),
            )
        )
    return sorted(rows, key=lambda row: -row.seconds)


INT8_KINDS = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "QLinearGemm")
FLOAT_KINDS = ("Conv", "MatMul", "Gemm", "FusedConv", "FusedGemm", "FusedMatMul")


@dataclass(frozen=True)
class MatrixOperators:
    """How many matrix operators of a graph run in int8, and how many in floating
    point."""

    int8: int
    floating: int


def count_matrix_operators(path: Path, scratch: Path) -> MatrixOperators:
    """What ONNX Runtime makes of a quantized file on a CPU, counted in its own
    optimised graph, which it writes to `scratch`."""
    import onnx

    options, _ = session_options(1, "int8")
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    ort().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(scratch / "optimised.onnx"), load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    return MatrixOperators(
        int8=sum(kind in INT8_KINDS or kind.startswith("MatMulIntegerTo") for kind in kinds),
        floating=sum(kind in FLOAT_KINDS for kind in kinds),
    )
