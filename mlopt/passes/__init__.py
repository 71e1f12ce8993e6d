"""The passes. Each is a frozen dataclass around its part of the recipe; `TABLE` says where it lives, so that none is imported unasked."""

from __future__ import annotations

import importlib

from mlopt.passes.base import Pass

TABLE = {
    "train": "mlopt.passes.fit:FitPass",
    "finetune": "mlopt.passes.fit:FitPass",
    "distill": "mlopt.passes.fit:FitPass",
    "prune": "mlopt.passes.prune:PrunePass",
    "torchscript": "mlopt.passes.torchscript:TorchScriptPass",
    "onnx": "mlopt.passes.onnx:OnnxPass",
    "aoti": "mlopt.passes.aoti:AotiPass",
    "quantize": "mlopt.passes.quantize:QuantizePass",
    "tensorrt": "mlopt.passes.tensorrt:TensorRTPass",
}


def pass_class(name: str) -> type[Pass]:
    """The class of a pass, imported now."""
    module, _, attribute = TABLE[name].partition(":")
    found: type[Pass] = getattr(importlib.import_module(module), attribute)
    return found
