"""MODEL: every way a model comes in. Nothing in a file is executed unless the user
asked for it by name."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mlopt.artifact import Format, TensorSpec, digest_of, hash_tree, sha256_file, sha256_json
from mlopt.errors import ModelRefused, UsageError
from mlopt.model import bundle as bundles
from mlopt.model import inert, structure
from mlopt.model.build import build
from mlopt.model.bundle import Bundle, call_factory, fill
from mlopt.model.origin import FactoryOrigin, Origin, StructureOrigin
from mlopt.model.tensors import canonical, raw_bytes
from mlopt.model.trust import Trust, is_factory


@dataclass(frozen=True)
class Source:
    """A loaded model. `module` is None for files that are only run (ONNX, engines);
    `bundle` says how a module is rebuilt."""

    kind: str
    sha256: str
    format: str
    module: nn.Module | None = None
    bundle: Bundle | None = None
    path: Path | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The input specs that came with the model; may be empty."""
        return self.bundle.inputs if self.bundle is not None else ()

    def trunk(self) -> tuple[nn.Module, Bundle]:
        """The module, for passes that change it. Raises `UsageError` for what is only
        run."""
        if self.module is None or self.bundle is None:
            raise UsageError(
                f"{self.path} ({self.kind}) can be benchmarked, inspected or converted, but not pruned or"
                " trained",
                "give the PyTorch module",
            )
        return self.module, self.bundle


def open_model(text: str, trust: Trust) -> Source:
    """Load MODEL: see the table in the README. Raises `UsageError` or `ModelRefused`,
    each with the narrowest flag that would help."""
    path = Path(text)
    if path.is_dir():
        return _from_directory(path, trust)
    if path.is_file():
        return _from_file(path, trust)
    if is_factory(text):
        module = call_factory(text, trust.arch_args)
        origin = FactoryOrigin(text, trust.arch_args)
        return Source("factory", _module_sha256(module, origin), Format.MODULE, module, Bundle(origin, ()))
    raise UsageError(f"{text}: no such file, bundle or factory", "give a path, or package.module:factory")


def _from_directory(path: Path, trust: Trust) -> Source:
    if (path / "run.json").is_file() and (path / "model" / "model.json").is_file():
        path = path / "model"
    if not (path / "model.json").is_file():
        raise UsageError(
            f"{path} is a directory without model.json", "give a bundle, a run directory, or a model file"
        )
    module, bundle = bundles.read(path, trust)
    return Source("bundle", digest_of(hash_tree(path)), Format.MODULE, module, bundle, path)


def _from_file(path: Path, trust: Trust) -> Source:
    if path.suffix == ".engine":
        _need_trust(path, "a TensorRT engine, which is code", trust)
        return Source("engine", sha256_file(path), Format.TENSORRT, path=path)
    kind = inert.kind_of(path)
    if kind == "onnx":
        from mlopt.model.onnx_file import check_onnx

        check_onnx(path)
        return Source("onnx", sha256_file(path), Format.ONNX, path=path)
    if kind == "safetensors":
        try:
            weights = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelRefused(f"{path} cannot be read: {error}", "copy the file again") from error
        return _state_dict(path, weights, trust)
    if kind == "torchscript":
        _need_trust(path, "a TorchScript program, which is code", trust)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return Source("torchscript", sha256_file(path), Format.TORCHSCRIPT, script, None, path)
    if kind == "pt2":
        _need_trust(path, "a .pt2 archive, which is code", trust)
        return Source("pt2", sha256_file(path), Format.AOTI, path=path)
    if kind == "unknown":
        raise ModelRefused(
            f"{path} is not a model file: its first bytes match no format that mlopt reads",
            "give a .pt, .safetensors or .onnx file",
        )
    return _pickle(path, trust)


def _need_trust(path: Path, what: str, trust: Trust) -> None:
    if not trust.trust_code:
        raise ModelRefused(f"{path} is {what}", "if you made it yourself: --trust-code")


def _pickle(path: Path, trust: Trust) -> Source:
    document = inert.read(path)
    try:
        value = build(document, replace(trust, trust_code=False), str(path))
    except ModelRefused:
        if not trust.trust_code:
            raise
        value = torch.load(path, map_location="cpu", weights_only=False)
    if isinstance(value, nn.Module):
        description = structure.describe(value)
        return Source(
            "pickled module",
            sha256_file(path),
            Format.MODULE,
            value,
            Bundle(StructureOrigin(description), ()),
            path,
        )
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if isinstance(value, dict) and value and all(isinstance(item, torch.Tensor) for item in value.values()):
        return _state_dict(path, value, trust)
    raise ModelRefused(
        f"{path} holds a {type(value).__name__}, neither a module nor a state dict",
        "save the model or its state_dict()",
    )


def _state_dict(path: Path, weights: dict[str, torch.Tensor], trust: Trust) -> Source:
    if not trust.arch:
        raise ModelRefused(
            f"{path} holds weights only ({len(weights)} tensors), not the network",
            "name what builds it: --arch package.module:factory",
        )
    module = call_factory(trust.arch, trust.arch_args)
    origin = FactoryOrigin(trust.arch, trust.arch_args)
    with contextlib.suppress(ValueError):
        fill(module, {name: tensor.clone() for name, tensor in weights.items()})
        return Source("state dict", sha256_file(path), Format.MODULE, module, Bundle(origin, ()), path)
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        line = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{path} does not fit {trust.arch}: {line}", "check --arch and its --arch-arg values"
        ) from error
    return Source("state dict", sha256_file(path), Format.MODULE, module, Bundle(origin, ()), path)


def adopt(
    module: nn.Module, factory: str | None = None, arguments: Mapping[str, object] | None = None
) -> Source:
    """A live module, for the Python interface: its structure is written down so that a
    bundle can be made of it, or the factory that builds it."""
    origin: Origin = FactoryOrigin(factory, arguments or {}) if factory else bundles.origin_of(module)
    return Source("module", _module_sha256(module, origin), Format.MODULE, module, Bundle(origin, ()))


def _module_sha256(module: nn.Module, origin: Origin) -> str:
    digest = hashlib.sha256(sha256_json(origin.to_json()).encode())
    for name, tensor in canonical(module).items():
        digest.update(name.encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()
