"""Post-training quantization of ONNX files: INT8 with calibration, and half precision.
Imports no torch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import BackendMissing, PassFailed
from mlopt.quantization.schemes import MATRIX, scheme_for
from mlopt.system.quiet import quiet

CALIBRATION_BATCH = 16


class CalibrationReader:
    """Feeds calibration samples, a batch at a time (the `CalibrationDataReader`
    interface)."""

    def __init__(self, names: list[str], inputs: list[NDArray[Any]], batch: int) -> None:
        self._names, self._inputs, self._batch = names, inputs, batch
        self._at = 0

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        # A last batch that is short would not fit a static graph.
        if self._at + self._batch > len(self._inputs[0]):
            return None
        part = slice(self._at, self._at + self._batch)
        self._at += self._batch
        return {name: array[part] for name, array in zip(self._names, self._inputs, strict=True)}

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        while (item := self.get_next()) is not None:
            yield item

    __next__ = get_next


@dataclass(frozen=True)
class Int8Graph:
    """What was written: the scheme in words, the calibration, and how many samples it
    saw."""

    scheme: str
    calibration: str
    calibration_samples: int


@dataclass(frozen=True)
class Fp16Graph:
    """What was written: the scheme in words."""

    scheme: str


def quantize_int8(
    source: Path, out: Path, target: str, method: str, inputs: list[NDArray[Any]], batch: int | None
) -> Int8Graph:
    """Write an INT8 Q/DQ copy of an ONNX file.

    `target`: `cpu` or `tensorrt`; `method`: `minmax`, `percentile` or `entropy`.
    `inputs`: one array of calibration samples for each input of the graph, samples
    first; `batch`: the graph's fixed batch, None when dynamic.

    Raises `BackendMissing`, and `PassFailed` when there is nothing to quantize or ONNX
    Runtime cannot.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise BackendMissing("onnxruntime", "pip install 'mlopt[cpu]'") from error
    graph = onnx.load(str(source), load_external_data=False).graph
    operators = {node.op_type for node in graph.node}
    if not operators & set(MATRIX):
        raise PassFailed(
            "the graph has no convolution and no matrix product to quantize", "leave out int8 for this model"
        )
    scheme = scheme_for(target, operators)
    names = [value.name for value in graph.input]
    with tempfile.TemporaryDirectory(prefix="mlopt-ptq-") as scratch, quiet():
        prepared = Path(scratch) / "prepared.onnx"
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        except Exception:  # graph clean-up is a help, not a need
            shutil.copyfile(source, prepared)
        methods = {
            "minmax": CalibrationMethod.MinMax,
            "percentile": CalibrationMethod.Percentile,
            "entropy": CalibrationMethod.Entropy,
        }
        size = batch or min(CALIBRATION_BATCH, len(inputs[0]))
        try:
            quantize_static(
                str(prepared),
                str(out),
                CalibrationReader(names, inputs, size),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(scheme.operators) or None,
                per_channel=scheme.per_channel,
                activation_type=QuantType[scheme.activation],
                weight_type=QuantType[scheme.weight],
                calibrate_method=methods[method],
                extra_options=dict(scheme.extra),
            )
        except Exception as error:
            raise PassFailed(
                f"onnxruntime cannot quantize the graph: {type(error).__name__}: {error}",
                "try calibration: minmax",
            ) from error
    return Int8Graph(f"{scheme.activation} activations, {scheme.weight} weights", method, len(inputs[0]))


def to_fp16(source: Path, out: Path) -> Fp16Graph:
    """Write a half-precision copy of an ONNX file; inputs and outputs stay float32.

    Raises `BackendMissing`, and `PassFailed` for a graph that cannot be converted or
    weights that overflow.
    """
    try:
        import onnx
        from onnxconverter_common import float16
    except ImportError as error:
        raise BackendMissing("onnxconverter-common", "pip install 'mlopt[onnx]'") from error
    with quiet():
        try:
            model = float16.convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
        except Exception as error:
            raise PassFailed(
                f"the graph cannot be converted to fp16: {type(error).__name__}: {error}",
                "leave out fp16 for this model",
            ) from error
    large = [
        init.name
        for init in model.graph.initializer
        if init.data_type == 10 and not np.isfinite(_values(init)).all()
    ]
    if large:
        raise PassFailed(
            f"weights overflow half precision: {', '.join(large[:3])}", "keep this model in fp32"
        )
    onnx.save(model, str(out))
    return Fp16Graph("float16 inside, float32 inputs and outputs")


def _values(initializer: Any) -> NDArray[Any]:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(initializer))
