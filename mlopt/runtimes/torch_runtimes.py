"""Runtimes that are PyTorch: eager, TorchScript, AOTInductor."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.errors import UsageError
from mlopt.model import bundle
from mlopt.model.outputs import first_tensors
from mlopt.model.trust import Trust
from mlopt.runtimes.base import Arrays, Call, OpenOptions

if TYPE_CHECKING:
    from mlopt.records.bench import Operator

NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


class TorchRuntime:
    """Any callable on tensors. `function` takes them by position, on `device`."""

    provider = "torch"
    precision: str | None

    def __init__(self, name: str, function: Any, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.name, self.device, self._function = name, device, function

    def _tensors(self, inputs: Arrays) -> list[torch.Tensor]:
        tensors = [torch.from_numpy(np.asarray(array)) for array in inputs]
        return [tensor.to(self.device) for tensor in tensors] if self.device != "cpu" else tensors

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        with torch.inference_mode():
            return [tensor.cpu().numpy() for tensor in first_tensors(self._function(*self._tensors(inputs)))]

    def bind(self, inputs: Arrays, copies: bool, graph: bool) -> Call:
        if copies:
            if graph:
                raise UsageError("a CUDA graph replays on the device", "measure it with --copies out")
            return lambda: self(inputs)
        tensors, function = self._tensors(inputs), torch.inference_mode()(self._function)
        if graph:
            return self._captured(function, tensors)
        return lambda: function(*tensors)  # on a GPU asynchronous, and timed by events

    def _captured(self, function: Any, tensors: list[torch.Tensor]) -> Call:
        """One call as a CUDA graph, after the three on a side stream that PyTorch's
        documentation asks for."""
        if self.device != "cuda":
            raise UsageError("CUDA graphs need --device cuda")
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                function(*tensors)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function(*tensors)
        return graph.replay

    def profile(self, inputs: Arrays, calls: int) -> list[Operator]:
        """torch.profiler's operators by their own time. It does not say in which
        precision each ran."""
        from torch.profiler import ProfilerActivity, profile

        from mlopt.records.bench import Operator

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device == "cuda" else [])]
        self(inputs)
        with profile(activities=activities, record_shapes=True, acc_events=True) as recorded:
            for _ in range(calls):
                self(inputs)
        spent: Counter[str] = Counter()
        for event in recorded.key_averages():
            spent[event.key] += (
                event.self_device_time_total if self.device == "cuda" else event.self_cpu_time_total
            )
        rows = [Operator(name, name, "torch", None, us * 1e-6 / calls) for name, us in spent.items()]
        return sorted(rows, key=lambda row: -row.seconds)


def precision_of(module: Any) -> str | None:
    """The commonest floating-point type of a module's weights, by number of elements;
    None without any."""
    sizes: Counter[str] = Counter()
    for tensor in module.parameters() if hasattr(module, "parameters") else ():
        if tensor.is_floating_point():
            sizes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return NAMES.get(sizes.most_common(1)[0][0]) if sizes else None


class Eager(TorchRuntime):
    """The module as PyTorch runs it, from its bundle. Raises `ModelRefused` for classes
    that nobody allowed."""

    def __init__(self, options: OpenOptions) -> None:
        module, _ = bundle.read(options.path, options.trust or Trust())
        self.precision = precision_of(module)
        super().__init__("eager", module.eval().to(options.device), options.threads, options.device)


class TorchScript(TorchRuntime):
    """A TorchScript program that mlopt wrote."""

    def __init__(self, options: OpenOptions) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.load(  # type: ignore[no-untyped-call]
                str(options.path), map_location=options.device
            )
        self.precision = precision_of(script)
        super().__init__("torchscript", script, options.threads, options.device)


class Aoti(TorchRuntime):
    """An AOTInductor package that mlopt wrote: for the CPU, whatever device is asked
    for."""

    precision = None  # its weights lie inside a compiled library

    def __init__(self, options: OpenOptions) -> None:
        from torch._inductor import aoti_load_package

        super().__init__("aoti", aoti_load_package(str(options.path)), options.threads, "cpu")
