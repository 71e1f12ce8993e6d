"""Which INT8 graph each target runs fast. Where Q and DQ nodes stand decides the speed,
up to eight-fold; one file cannot serve both targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MATRIX = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Scheme:
    """An INT8 scheme for `onnxruntime.quantization.quantize_static` in QDQ format.
    Empty `operators`: all that can be."""

    activation: str
    weight: str
    per_channel: bool
    operators: tuple[str, ...]
    extra: Mapping[str, object]


CPU = Scheme("QUInt8", "QInt8", True, (), {})
"""ONNX Runtime's CPU kernels: unsigned activations, signed weights with a scale for
each channel."""

CPU_TRANSFORMER = Scheme("QUInt8", "QInt8", True, MATRIX, {})
"""The same, on the matrix products alone: residual sums, normalisations and softmax in
int8 cost a transformer most of its signal (8 dB against 28 dB on a small vision
transformer)."""

TENSORRT = Scheme(
    "QInt8",
    "QInt8",
    True,
    MATRIX,
    {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,  # TensorRT refuses Int32 Q/DQ on biases
        "OpTypesToExcludeOutputQuantization": [*MATRIX, "Add", "MaxPool"],  # keeps Conv -> ReLU fusable
    },
)
"""TensorRT: symmetric signed everywhere, biases in float, no Q/DQ between a convolution
and its activation."""


def scheme_for(target: str, operators: set[str]) -> Scheme:
    """The scheme for a target and the operator types of a graph."""
    if target == "tensorrt":
        return TENSORRT
    return (
        CPU_TRANSFORMER
        if operators & {"LayerNormalization", "Softmax", "Attention", "RMSNormalization"}
        else CPU
    )
