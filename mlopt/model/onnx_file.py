"""ONNX files: checked before any runtime opens them, and read for their signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlopt.artifact import TensorSpec
from mlopt.errors import BackendMissing, ModelRefused, first_line

ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    16: "bfloat16",
}


def onnx_module() -> Any:
    """The onnx package. Raises `BackendMissing`."""
    try:
        import onnx
    except ImportError as error:
        raise BackendMissing("onnx", "pip install 'mlopt[onnx]'") from error
    return onnx


def check_onnx(path: Path) -> Any:
    """The parsed model, without external data read. Refuses data files that leave the
    directory, are links, or do not reach as far as the model says. ONNX Runtime follows
    a hard link that onnx itself refuses, so this runs before any session is made.
    """
    onnx = onnx_module()
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(str(path))
    except Exception as error:
        line = first_line(error)[:200]
        raise ModelRefused(f"{path} is not a valid ONNX model: {line}", "export it again") from error
    for tensor in all_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                _check_external(path, entry.value, {item.key: item.value for item in tensor.external_data})
    return model


def all_tensors(model: Any) -> list[Any]:
    """Initializers and constant attributes of a model, subgraphs included."""
    out: list[Any] = []

    def walk(graph: Any) -> None:
        out.extend(graph.initializer)
        for sparse in graph.sparse_initializer:
            out.extend([sparse.values, sparse.indices])
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    out.append(attribute.t)
                out.extend(attribute.tensors)
                if attribute.HasField("g"):
                    walk(attribute.g)
                for sub in attribute.graphs:
                    walk(sub)

    walk(model.graph)
    return out


def _check_external(path: Path, location: str, entries: dict[str, str]) -> None:
    target = path.parent / location
    inside = not Path(location).is_absolute() and target.resolve().parent.is_relative_to(
        path.parent.resolve()
    )
    if not inside or target.is_symlink():
        raise ModelRefused(
            f"{path} keeps data outside its own directory ({location})", "move the data file beside the model"
        )
    if not target.is_file():
        raise ModelRefused(f"{path} needs its data file {location}, which is not there", "copy both files")
    stat = target.stat()
    if stat.st_nlink != 1:
        raise ModelRefused(f"{target} is a hard link", "make a copy of it")
    if int(entries.get("offset", 0)) + int(entries.get("length", 0)) > stat.st_size:
        raise ModelRefused(f"{target} is shorter than the model says", "copy the data file again")


def input_specs(model: Any) -> tuple[TensorSpec, ...]:
    """The signature of a parsed model; dynamic dimensions keep their name."""
    weights = {tensor.name for tensor in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        dims = tuple(
            (
                int(dim.dim_value)
                if dim.HasField("dim_value")
                else (dim.dim_param if dim.dim_param.isidentifier() else f"d{i}")
            )
            for i, dim in enumerate(kind.shape.dim)
        )
        specs.append(TensorSpec(value.name, dims, ELEMENT_TYPES.get(kind.elem_type, "float32")))
    return tuple(specs)
