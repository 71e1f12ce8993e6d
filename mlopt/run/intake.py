"""A model comes in: opened, its inputs settled, its data loaded, and itself put into
the store as the artifact everything starts from."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mlopt.artifact import Artifact, Format
from mlopt.data.sets import DataSet, load_data
from mlopt.errors import MloptError, PassFailed
from mlopt.model import bundle as bundles
from mlopt.model.inputs import check_runs, infer, parse_spec, specs_of_tensors
from mlopt.model.origin import Origin
from mlopt.model.sources import open_model
from mlopt.model.trust import Trust
from mlopt.recipe.schema import Model, Recipe
from mlopt.run.store import Store
from mlopt.system.files import disk_errno


@dataclass(frozen=True)
class Intake:
    """What came in. `how`: where the input specs are from, in words; `origin`: how a
    module is rebuilt, None for a file."""

    artifact: Artifact
    data: DataSet
    how: str
    sha256: str
    kind: str
    origin: Origin | None = None


def take_in(recipe: Recipe, trust: Trust, store: Store, data: DataSet | None) -> Intake:
    """Open the recipe's model; `data` replaces the recipe's when given. Raises
    `UsageError` and its kin, before anything is changed.

    The module itself is let go: every pass reads what it needs from the store, and a
    large model must not stay for all of them.
    """
    torch.manual_seed(recipe.seed)  # a factory draws its weights: the same recipe must draw the same ones
    source = open_model(recipe.model.path, trust)
    if source.format == Format.ONNX:
        from mlopt.model.onnx_file import check_onnx, input_specs

        path = source.path
        assert path is not None
        specs = input_specs(check_onnx(path))
        loaded = data or load_data(recipe.data, specs)
        given = Artifact("model.onnx", Format.ONNX, Path(), "model.onnx", "", specs)
        artifact = put(store, given, lambda stage: copy_onnx(path, stage))
        return Intake(artifact, loaded, "from the file", source.sha256, source.kind)
    module, bundle = source.trunk()
    specs, how = tuple(parse_spec(text, i) for i, text in enumerate(recipe.input)), "given"
    if not specs and bundle.inputs:
        specs, how = bundle.inputs, "from the bundle"
    loaded = data or load_data(recipe.data, specs)
    part = loaded.any_part()
    if not specs and part is not None:
        specs, how = specs_of_tensors(part.take(2)[0]), "from the data's first batch"
    if specs:
        check_runs(module, specs)
    else:
        specs, how = infer(module), "inferred from the model's first layers, and tried"
    dense = replace(bundle, inputs=specs)
    artifact = put(
        store,
        Artifact("module", Format.MODULE, Path(), "", "", specs),
        lambda stage: bundles.write(stage, module, dense),
    )
    return Intake(artifact, loaded, how, source.sha256, source.kind, dense.origin)


def put(store: Store, artifact: Artifact, write: Callable[[Path], None]) -> Artifact:
    """Publish what `write` writes."""
    stage = store.stage()
    try:
        with library_errors("import"):
            write(stage)
        root, digest = store.publish(stage)
    finally:
        store.discard(stage)
    return replace(artifact, root=root, digest=digest)


@contextlib.contextmanager
def library_errors(name: str) -> Iterator[None]:
    """A full disk is one, whatever a library makes of it; any other surprise inside a
    pass (a call of `sys.exit`, too) is a failed pass, not a traceback."""
    try:
        yield
    except (Exception, SystemExit) as error:
        number = disk_errno(error)
        if number is not None:
            raise OSError(number, os.strerror(number)) from error
        if isinstance(error, MloptError):
            raise
        lines = str(error).strip().splitlines() or [""]
        words = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
        raise PassFailed(
            f"{name} raised {type(error).__name__}: {words}",
            "if the model is sound, this is a fault of mlopt: please report it",
        ) from error


def trust_of(model: Model) -> Trust:
    """What a recipe allows."""
    return Trust(model.arch, dict(model.arch_args), model.allow_class, model.trust_code).for_model(model.path)


def copy_onnx(path: Path, stage: Path) -> None:
    """An ONNX file and the data files it names, which were checked to lie beside it."""
    import onnx

    from mlopt.model.onnx_file import all_tensors

    shutil.copyfile(path, stage / "model.onnx")
    tensors = all_tensors(onnx.load(str(path), load_external_data=False))
    for name in {
        entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"
    }:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / name, stage / name)
