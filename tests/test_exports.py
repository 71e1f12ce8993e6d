"""Exports one by one: schemes, runtimes that crash, TorchScript's fallback,
AOTInductor, and the TensorRT adapter's names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import mlopt
from mlopt.artifact import Artifact, Format
from mlopt.catalog import BackendSpec
from mlopt.checking.parity import compare, judge
from mlopt.errors import PassFailed, UsageError
from mlopt.exporting.tensorrt_builder import build
from mlopt.model.trust import Trust
from mlopt.quantization.ptq import quantize_int8
from mlopt.quantization.schemes import CPU, CPU_TRANSFORMER, TENSORRT, scheme_for
from mlopt.recipe.schema import Tolerance
from mlopt.records.bench import Operator
from mlopt.runtimes.base import OpenOptions
from mlopt.runtimes.messages import (
    Done,
    Opened,
    OpenJob,
    PrepareJob,
    Profiled,
    Refused,
    RunJob,
    Times,
    Usage,
    from_line,
    to_line,
)
from mlopt.runtimes.opening import open_runtime, opener_of
from mlopt.runtimes.remote import Worker, WorkerSpec
from mlopt.runtimes.timing import Slowdown
from mlopt.runtimes.worker import write_sets
from tests.conftest import ROOT, plain_cnn, run_json


def export(module: nn.Module, x: torch.Tensor, out: Path, *kinds: str, **options: Any) -> dict[str, Any]:
    mlopt.compress(module, x, export=kinds, out=out, **{"bench": False, **options})
    return run_json(out)


def test_the_target_decides_the_graph(tmp_path: Path) -> None:
    """CPU: unsigned activations. TensorRT: signed, symmetric, no Int32 bias, and
    nothing between a convolution and its ReLU."""
    export(
        plain_cnn(),
        torch.randn(1, 3, 16, 16),
        tmp_path,
        "onnx",
        quantize=["int8"],
        target=["cpu", "tensorrt"],
    )
    cpu, trt = (
        onnx.load(str(tmp_path / "exports" / f"model.int8-{name}.onnx")).graph for name in ("cpu", "tensorrt")
    )

    def zero_points(graph: Any) -> set[int]:
        kinds = {init.name: init.data_type for init in graph.initializer}
        return {
            kinds[node.input[2]]
            for node in graph.node
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
        }

    assert onnx.TensorProto.UINT8 in zero_points(cpu)
    assert zero_points(trt) == {onnx.TensorProto.INT8}
    consumers = {name: node.op_type for node in trt.node for name in node.input}
    assert {consumers[node.output[0]] for node in trt.node if node.op_type == "Conv"} <= {
        "Relu",
        "GlobalAveragePool",
        "ReduceMean",
    }
    run = run_json(tmp_path)
    entry = next(e for e in run["passes"] if e["name"] == "model.int8-cpu.onnx")
    assert entry["metrics"]["int8_operators"] == 3
    assert entry["metrics"]["float_operators"] == 0


def test_schemes() -> None:
    assert scheme_for("cpu", {"Conv", "Relu"}) is CPU
    assert scheme_for("cpu", {"MatMul", "Softmax"}) is CPU_TRANSFORMER
    assert scheme_for("tensorrt", {"MatMul", "Softmax"}) is TENSORRT


def test_nothing_to_quantize(tmp_path: Path) -> None:
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    onnx.save(
        helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])),
        tmp_path / "m.onnx",
    )
    with pytest.raises(PassFailed, match="no convolution"):
        quantize_int8(
            tmp_path / "m.onnx", tmp_path / "q.onnx", "cpu", "minmax", [np.zeros((4, 4), np.float32)], None
        )


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_calibrations(tmp_path: Path, method: str) -> None:
    export(plain_cnn(), torch.randn(1, 3, 16, 16), tmp_path, "onnx")
    x = np.random.default_rng(0).standard_normal((64, 3, 16, 16)).astype(np.float32)
    source = tmp_path / "exports" / "model.onnx"
    quantize_int8(source, tmp_path / "q.onnx", "cpu", method, [x], None)
    want, got = (
        open_runtime(opener_of(Format.ONNX), OpenOptions(path))([x]) for path in (source, tmp_path / "q.onnx")
    )
    assert compare(want, got).cosine > 0.99


class Unscriptable(nn.Module):
    """Scripting needs types that this has not; tracing does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"a": nn.Linear(8, 32), "b": nn.Linear(32, 4)})

    def forward(self, x):  # type: ignore[no-untyped-def]
        for name in sorted(self.layers, key=lambda key: key):
            x = self.layers[name](x)
        return x


def test_torchscript_falls_back_to_tracing_and_says_so(tmp_path: Path) -> None:
    run = export(Unscriptable(), torch.randn(2, 8), tmp_path, "torchscript")
    assert run["passes"][0]["metrics"]["how"] == "trace"
    assert run["passes"][0]["metrics"]["why_not_scripted"]


class Baked(nn.Module):
    """Its batch size becomes a constant of the trace."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x):  # type: ignore[no-untyped-def]
        n = int(np.array(x.shape)[0])  # NumPy: no script, and a constant in the trace
        return self.layer(x.reshape(n, 8))


def test_a_traced_batch_that_is_baked_in_is_caught(tmp_path: Path) -> None:
    with pytest.raises(PassFailed, match="invalid for input of size"):
        export(Baked(), torch.randn(2, 8), tmp_path, "torchscript")


@pytest.mark.slow
def test_aoti(tmp_path: Path) -> None:
    run = export(plain_cnn(), torch.randn(1, 3, 16, 16), tmp_path, "aoti", bench=True)
    assert run["artifacts"][0]["parity"]["max_error"] < 1e-3
    assert {row["artifact"] for row in run["bench"]} == {"eager dense", "model.aoti.pt2"}


def test_a_class_that_no_other_process_can_import(tmp_path: Path) -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(UsageError, match="cannot import") as error:
        export(Local(), torch.randn(2, 8), tmp_path / "run", "onnx")
    assert "module" in error.value.hint
    assert not (tmp_path / "run").exists()


def test_a_worker_that_dies_is_one_clear_error(tmp_path: Path) -> None:
    export(plain_cnn(), torch.randn(1, 3, 16, 16), tmp_path, "onnx")
    with Worker("a", WorkerSpec(Format.ONNX, tmp_path / "exports" / "model.onnx")) as worker:
        write_sets(tmp_path / "in.npz", [[np.zeros((1, 3, 16, 16), np.float32)]])
        worker.prepare(tmp_path / "in.npz")
        assert len(worker.block(5)) == 5
        worker._process.kill()
        with pytest.raises(PassFailed, match="died"):
            worker.block(5)
    with (
        pytest.raises(PassFailed, match="cannot load"),
        Worker("b", WorkerSpec(Format.ONNX, tmp_path / "run.json")),
    ):
        pass


def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    """A loop of 10^9 rounds, as a hostile or broken graph may hold."""
    from onnx import helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Add", ["v", "v"], ["vo"])], "b",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, []), helper.make_tensor_value_info("v", 1, [1])],
        [helper.make_tensor_value_info("co", 9, []), helper.make_tensor_value_info("vo", 1, [1])],
    )  # fmt: skip
    count, go = helper.make_tensor("n", 7, [], [10**9]), helper.make_tensor("go", 9, [], [True])
    x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)], "g", [x], [y], [count, go]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "loop.onnx",
    )
    with Worker("loop", WorkerSpec(Format.ONNX, tmp_path / "loop.onnx")) as worker:
        write_sets(tmp_path / "in.npz", [[np.zeros(1, np.float32)]])
        with pytest.raises(PassFailed, match="did not answer within 1 s"):
            worker.ask(RunJob(tmp_path / "in.npz", tmp_path / "o.npz"), Done, timeout_s=1)


def test_parity_judges() -> None:
    strict = Tolerance(max_error=1e-3, min_cosine=0.9999)
    a = [np.array([[1.0, 2.0, 3.0]])]
    judge(compare(a, [a[0] + 1e-4]), strict, "x")
    for bad, words in (
        ([a[0] * np.nan], "NaN"),
        ([a[0] + np.inf], "NaN"),
        ([a[0] + 0.1], "differs"),
        ([-a[0]], "differs"),
    ):
        with pytest.raises(PassFailed, match=words):
            judge(compare(a, bad), strict, "x")
    with pytest.raises(PassFailed, match="cosine"):
        judge(compare(a, [a[0][:, ::-1]]), Tolerance(max_error=10, min_cosine=0.99), "x")
    with pytest.raises(PassFailed, match="shapes"):
        compare(a, [a[0][:, :2]])
    assert compare(a, [a[0][:, ::-1]]).agreement == 0.0


def test_cuda_is_not_quietly_replaced_by_the_cpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    export(plain_cnn(), torch.randn(1, 3, 16, 16), tmp_path, "onnx")
    with pytest.raises(UsageError, match="CUDAExecutionProvider"):
        open_runtime(opener_of(Format.ONNX), OpenOptions(tmp_path / "exports" / "model.onnx", device="cuda"))


def test_a_runtime_on_another_device_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AOTInductor packages of mlopt are for the CPU, whatever is asked for."""

    class OnCpu:
        name, device, provider = "aoti", "cpu", "torch"

        def __init__(self, options: OpenOptions) -> None: ...

    monkeypatch.setattr("mlopt.runtimes.torch_runtimes.Aoti", OnCpu)
    assert open_runtime(opener_of(Format.AOTI), OpenOptions(tmp_path / "m.pt2")).device == "cpu"
    with pytest.raises(UsageError, match="asked to run on cuda, and runs on cpu"):
        open_runtime(opener_of(Format.AOTI), OpenOptions(tmp_path / "m.pt2", device="cuda"))


TOY = """
import numpy as np

class Toy:
    name, device, provider, precision = "toy", "cpu", "numpy", "fp32"

    def __init__(self, options):
        self.factor = float(options.path.read_text())

    def __call__(self, inputs):
        return [np.asarray(array) * self.factor for array in inputs]

    def bind(self, inputs, copies, graph):
        return lambda: self(inputs)

    def profile(self, inputs, calls):
        return []
"""


def test_a_runtime_of_a_plugin_runs_in_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was registered in this process alone is opened in the other: its name
    travels with the job."""
    (tmp_path / "toy_runtime.py").write_text(TOY)
    (tmp_path / "m.toy").write_text("3")
    monkeypatch.syspath_prepend(str(tmp_path))
    toy = BackendSpec("toy", "Toy", formats=("toy",), opener="toy_runtime:Toy")
    monkeypatch.setattr("mlopt.runtimes.opening.backend_for", lambda name: toy)
    with Worker("toy", WorkerSpec("toy", tmp_path / "m.toy")) as worker:
        assert worker.info.runtime == "toy"
        assert worker.run([np.ones(2, np.float32)])[0].tolist() == [3.0, 3.0]
    with pytest.raises(UsageError, match="cannot be imported"):
        open_runtime("no_such_runtime:Toy", OpenOptions(tmp_path / "m.toy"))


def test_what_cannot_run_is_said_before_a_process_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mlopt builds TensorRT engines and cannot run them yet"):
        Worker("e", WorkerSpec(Format.TENSORRT, tmp_path / "m.engine"))
    with pytest.raises(UsageError, match="no backend runs artifacts of the format 'odd'"):
        opener_of("odd")


@pytest.mark.parametrize(
    "message",
    [
        OpenJob(
            "a.b:C",
            OpenOptions(Path("m"), 2, "cuda", "int8", Trust("a:b", {"width": 3}, ("x.*",)), True),
            True,
            Slowdown(every=0.1),
        ),
        OpenJob("a.b:C", OpenOptions(Path("m"))),
        RunJob(Path("in"), Path("out"), None),
        PrepareJob(Path("in"), "out", True, True),
        Opened("eager", "cpu", "torch", None, 0.5, (0, 3)),
        Times((1, 2, 3)),
        Profiled((Operator("n", "Conv", "CPU", None, 1e-6),)),
        Usage(7, None, 0),
        Refused("why", "what to do", 4),
    ],
)
def test_messages_survive_the_pipe(message: Any) -> None:
    line = to_line(message)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert from_line(line) == message


def test_a_worker_brings_neither_torch_nor_pydantic() -> None:
    """Both would be in the memory that is measured of an ONNX file."""
    code = (
        "import sys, mlopt.runtimes.worker, mlopt.runtimes.onnx_runtime; sys.exit(bool({'torch', 'pydantic'}"
        " & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_format_that_nobody_knows_keeps_its_name(tmp_path: Path) -> None:
    artifact = Artifact("m", "toy", tmp_path, "m.toy", "0", ())
    assert Artifact.from_description(artifact.describe(), tmp_path, "0") == artifact
    known = Artifact.from_description({**artifact.describe(), "format": "onnx"}, tmp_path, "0")
    assert known.format is Format.ONNX


def test_tensorrt_refusals_carry_its_words(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "bad.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"."):
        build("tensorrt_rtx", tmp_path / "bad.onnx", {})
    export(plain_cnn(), torch.randn(1, 3, 16, 16), tmp_path / "run", "onnx")
    source = tmp_path / "run" / "exports" / "model.onnx"
    with pytest.raises(ValueError, match="profile"):
        build("tensorrt_rtx", source, {})  # a dynamic batch without a profile
    plan, version = build("tensorrt_rtx", source, {"x": [[1, 3, 16, 16], [1, 3, 16, 16], [8, 3, 16, 16]]})
    assert plan[:4] == b"vtrt"
    assert version


def test_the_tensorrt_adapter_uses_names_that_exist() -> None:
    """Every attribute taken from the bindings exists in TensorRT-RTX, and none is one
    that TensorRT 11 removed."""
    trt = pytest.importorskip("tensorrt_rtx")
    tree = ast.parse((ROOT / "mlopt" / "exporting" / "tensorrt_builder.py").read_text())
    names = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt"
    }
    assert {"Builder", "OnnxParser", "ILogger"} <= names
    assert all(hasattr(trt, name) for name in names)
    everything = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not everything & {
        "int8_calibrator",
        "FP16",
        "INT8",
        "BF16",
        "device_memory_size",
        "max_workspace_size",
        "build_engine",
    }
