"""What a model is, what can be pruned in it, and what each runtime will say to it."""

from __future__ import annotations

from typing import Any

from torch import nn

from mlopt.artifact import Format
from mlopt.errors import MloptError
from mlopt.model import bundle as bundles
from mlopt.model.inputs import check_runs, infer, parse_spec, synthetic
from mlopt.model.sources import Source, open_model
from mlopt.model.trust import Trust

MAX_LAYERS = 400


def inspect_model(text: str, trust: Trust, input: tuple[str, ...]) -> dict[str, Any]:
    """A JSON description. Raises what loading raises; a model that cannot be captured is still described, with the reason."""
    source = open_model(text, trust)
    if source.module is None or source.bundle is None:
        return _file(source)
    module = source.module.eval()
    specs = tuple(parse_spec(item, i) for i, item in enumerate(input)) or source.inputs or infer(module)
    check_runs(module, specs)
    tensors = bundles.canonical(module)
    parameters = {name for name, _ in module.named_parameters()}
    out: dict[str, Any] = {
        "kind": source.kind,
        "class": type(module).__name__,
        "sha256": source.sha256,
        "input": [str(spec) for spec in specs],
        "params": sum(tensor.numel() for name, tensor in tensors.items() if name in parameters),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        "prunings": len(source.bundle.surgeries),
        "layers": _layers(module),
        "runtimes": _runtimes(module),
    }
    from mlopt.pruning.engine import analyse

    try:
        found = analyse(module, synthetic(specs))
    except MloptError as error:
        return {**out, "macs": None, "prunable": [], "prunable_reason": error.message}
    counter = found.counter()
    import numpy as np

    dense = counter.of_widths(np.array([len(group.classes) for group in found.groups], dtype=float))
    groups = [{"name": g.name, "width": len(g.classes) * g.unit, "unit": g.unit, "prunable": len(g.classes) > g.step(8)} for g in found.groups]
    return {**out, "macs": dense.macs, "prunable": groups, "unknown_operators": found.flow.unknown}


def _file(source: Source) -> dict[str, Any]:
    out: dict[str, Any] = {"kind": source.kind, "sha256": source.sha256, "bytes": source.path.stat().st_size if source.path else None}
    if source.format is Format.ONNX and source.path is not None:
        from mlopt.model.onnx_file import check_onnx, input_specs

        model = check_onnx(source.path)
        kinds: dict[str, int] = {}
        for node in model.graph.node:
            kinds[node.op_type] = kinds.get(node.op_type, 0) + 1
        out |= {
            "opset": next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None),
            "input": [str(spec) for spec in input_specs(model)],
            "operators": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        }
    return out


def _layers(module: nn.Module) -> list[dict[str, Any]]:
    out = []
    for path, child in module.named_modules():
        own = sum(p.numel() for p in child.parameters(recurse=False))
        if own:
            out.append({"path": path, "class": type(child).__name__, "params": own})
    return out[:MAX_LAYERS]


def _runtimes(module: nn.Module) -> dict[str, str]:
    """What is known to matter before exporting; empty lines mean nothing does."""
    classes = {type(child) for child in module.modules()}
    says = {"onnx": "exports through torch.export", "torchscript": "scripted, or traced where scripting fails", "tensorrt": "from the ONNX file"}
    if any(issubclass(kind, nn.RNNBase) for kind in classes):
        says["tensorrt"] = "recurrent layers are unrolled: long sequences make large engines"
    if any(issubclass(kind, nn.MultiheadAttention) for kind in classes):
        says["int8 on cpu"] = "only matrix products are quantized: residual sums and normalisations would lose accuracy"
    widths = [c.out_channels for c in module.modules() if isinstance(c, nn.Conv2d) and c.out_channels % 8]
    if widths:
        says["int8"] = f"{len(widths)} convolutions have widths that are no multiple of 8 ({sorted(set(widths))[:4]}): kernels pad them"
    return says
