"""Whether the passes of a recipe fit together, decided before the first one runs and without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from mlopt.artifact import Format
from mlopt.errors import BackendMissing, RecipeError
from mlopt.recipe import schema as recipes
from mlopt.recipe.schema import Quantize, Recipe, Step, TensorRT

NEEDS = {
    "onnx": (("onnx", "onnxscript"), "pip install 'mlopt[onnx]'"),
    "quantize": (("onnx", "onnxruntime"), "pip install 'mlopt[onnx,cpu]'"),
    "tensorrt": (("onnx", "tensorrt_rtx"), "pip install 'mlopt[rtx]'"),
}


@dataclass(frozen=True)
class Planned:
    """One step: its unique name in the record, and the name of the artifact it takes (`module`, or an export's file name)."""

    name: str
    step: Step
    takes: str


def output_name(step: Step) -> str:
    """The file a leaf gives."""
    if isinstance(step, Quantize):
        return "model.fp16.onnx" if step.precision == "fp16" else f"model.int8-{step.target}.onnx"
    if isinstance(step, TensorRT):
        return f"model.{step.flavour}.engine"
    return {"torchscript": "model.torchscript.pt", "onnx": "model.onnx", "aoti": "model.aoti.pt2"}[step.pass_]


def source_of(step: TensorRT) -> str:
    """The ONNX file an engine is built from."""
    return {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8-tensorrt.onnx"}[step.source]


def plan(recipe: Recipe, start: str = Format.MODULE) -> list[Planned]:
    """The steps in order. Raises `RecipeError` naming the step that does not fit, `BackendMissing` for what is not installed."""
    have = {"module"} if start is Format.MODULE else {"model.onnx"}
    names: dict[str, int] = {}
    out: list[Planned] = []
    leaf = ""
    for index, step in enumerate(recipe.passes):
        where = f"passes[{index}] ({step.pass_})"
        if step.pass_ in recipes.TRUNK:
            if leaf:
                raise RecipeError(f"{where} changes the module after {leaf} has exported it", "put the exports last")
            if start is not Format.MODULE:
                raise RecipeError(f"{where} needs a PyTorch module, and the model is an ONNX file", "give the module, or leave out this pass")
            if step.pass_ in ("train", "finetune", "distill") and recipe.data is None:
                raise RecipeError(f"{where} needs training data", "say where it is: --data file.npz (recipe: data:)")
            takes = "module"
        else:
            takes = _leaf_input(step)
            if takes not in have:
                missing = {"module": "the PyTorch module", "model.onnx": "an onnx pass before it"}.get(takes, f"{takes}, which no earlier pass gives")
                raise RecipeError(f"{where} needs {missing}", "add the pass, or put it first")
            made = output_name(step)
            if made in have:
                raise RecipeError(f"{where} gives {made} a second time", "leave out one of the two")
            have.add(made)
            leaf = step.pass_
        names[step.pass_] = names.get(step.pass_, 0) + 1
        unique = step.pass_ if names[step.pass_] == 1 else f"{step.pass_}-{names[step.pass_]}"
        out.append(Planned(made if step.pass_ in ("quantize", "tensorrt") else unique, step, takes))
        _check_backend(step)
    return out


def _leaf_input(step: Step) -> str:
    if isinstance(step, Quantize):
        return "model.onnx"
    return source_of(step) if isinstance(step, TensorRT) else "module"


def _check_backend(step: Step) -> None:
    packages, install = NEEDS.get(step.pass_, ((), ""))
    if isinstance(step, TensorRT) and step.flavour == "tensorrt":
        packages, install = ("onnx", "tensorrt"), "pip install 'mlopt[tensorrt]'"
    for package in packages:
        if find_spec(package) is None:
            raise BackendMissing(package, install)
