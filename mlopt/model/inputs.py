"""Input specs: parsed from the command line, or inferred from a model's first layers
and tried out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mlopt.artifact import TensorSpec
from mlopt.errors import UsageError, first_line
from mlopt.model.capture import evaluating

IMAGE_SIZES = (224, 32, 28, 64, 16, 8, 96, 128, 256, 299, 384)
LENGTHS = (16, 64, 128, 32, 256, 8)
MAX_DYNAMIC = 1 << 16
HINTS = ("img_size", "image_size", "input_size", "resolution")


def parse_spec(text: str, position: int = 0) -> TensorSpec:
    """`[name=]dims[:dtype]`: `1,3,224,224`, `ids=batch,128:int64`. Raises
    `UsageError`."""
    name, equals, rest = text.partition("=")
    if not equals:
        name, rest = "x" if position == 0 else f"x{position}", text
    dims_text, _, dtype = rest.partition(":")
    dims: list[int | str] = []
    for part in dims_text.split(","):
        part = part.strip()
        if part.isidentifier():
            dims.append(part)
        elif part.isdigit() and int(part) > 0:
            dims.append(int(part))
        else:
            raise UsageError(
                f"--input {text}: '{part}' is neither a size nor a word",
                "for example --input 1,3,224,224 or --input x=batch,3,32,32",
            )
    dtype = dtype or "float32"
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UsageError(f"--input {text}: '{dtype}' is not a dtype", "for example float32 or int64")
    if not name.isidentifier():
        raise UsageError(f"--input {text}: '{name}' is not a name", "for example --input x=1,3,224,224")
    return TensorSpec(name, tuple(dims), dtype)


def synthetic(specs: tuple[TensorSpec, ...], dynamic: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Random inputs of these specs: standard normal, or the integers 0 and 1, which
    index any table.

    `dynamic`: the size of every dynamic dimension.
    """
    generator = torch.Generator().manual_seed(seed)
    out = []
    for spec in specs:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            out.append(torch.randn(spec.sizes(dynamic), generator=generator).to(dtype))
        else:
            out.append(torch.randint(0, 2, spec.sizes(dynamic), generator=generator).to(dtype))
    return tuple(out)


def rejection(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    """Why the module rejects these inputs: the first line of what it raised; empty when
    it accepts them."""
    with evaluating(module), torch.no_grad():
        try:
            module(*inputs)
        except Exception as error:  # whatever a user's forward raises
            return f"{type(error).__name__}: {first_line(error)}"
    return ""


def specs_of_tensors(tensors: Iterable[torch.Tensor]) -> tuple[TensorSpec, ...]:
    """The signature of example tensors, whose first dimension becomes a dynamic
    batch."""
    return tuple(
        TensorSpec(
            "x" if i == 0 else f"x{i}",
            ("batch", *map(int, tensor.shape[1:])),
            str(tensor.dtype).removeprefix("torch."),
        )
        for i, tensor in enumerate(tensors)
    )


def check_runs(module: nn.Module, specs: tuple[TensorSpec, ...]) -> None:
    """Raises `UsageError` when the model rejects inputs of these specs."""
    problem = rejection(module, synthetic(specs))
    if problem:
        shown = " ".join(f"--input {spec}" for spec in specs)
        raise UsageError(f"the model rejects {shown}: {problem}", "give the shape and dtype that it expects")


def candidates(module: nn.Module) -> Iterator[tuple[TensorSpec, ...]]:
    """Inputs that the first layers might take, the likeliest first."""
    hinted = [
        int(v)
        for child in module.modules()
        for key, v in vars(child).items()
        if key in HINTS and type(v) is int
    ]
    sizes = list(dict.fromkeys([*hinted, *IMAGE_SIZES]))
    for layer in itertools.islice(
        (m for m in module.modules() if any(True for _ in m.parameters(recurse=False))), 4
    ):
        if isinstance(layer, nn.Conv2d):
            small = layer.in_channels == 1
            order = [*hinted, *(s for s in (28, 32, 16, 8, *sizes) if small), *sizes]
            for size in dict.fromkeys(order):
                yield (TensorSpec("x", ("batch", layer.in_channels, size, size)),)
        elif isinstance(layer, nn.Conv1d):
            for length in LENGTHS:
                yield (TensorSpec("x", ("batch", layer.in_channels, length * 8)),)
        elif isinstance(layer, nn.Conv3d):
            for size in (16, 32, 64):
                yield (TensorSpec("x", ("batch", layer.in_channels, size, size, size)),)
        elif isinstance(layer, nn.Embedding):
            for length in LENGTHS:
                yield (TensorSpec("x", ("batch", length), "int64"),)
        elif isinstance(layer, nn.Linear):
            yield (TensorSpec("x", ("batch", layer.in_features)),)
            for length in LENGTHS:
                yield (TensorSpec("x", ("batch", length, layer.in_features)),)
        elif isinstance(layer, nn.MultiheadAttention):
            for length in LENGTHS:
                yield (TensorSpec("x", ("batch", length, layer.embed_dim)),)


def infer(module: nn.Module) -> tuple[TensorSpec, ...]:
    """The first candidate that the model accepts at batch 2, its batch left dynamic.
    Raises `UsageError` showing the flag to type."""
    tried = []
    for specs in candidates(module):
        problem = rejection(module, synthetic(specs))
        if not problem:
            return specs
        tried.append(f"{specs[0]}: {problem}")
    last = f"; the last of {len(tried)} tries: {tried[-1]}" if tried else ""
    raise UsageError(
        f"the input shape cannot be inferred from the model's first layers{last}",
        "say it: --input batch,3,224,224",
    )


def dynamic_shapes(specs: tuple[TensorSpec, ...]) -> tuple[dict[int, Any], ...] | None:
    """`torch.export`'s dynamic shapes: one symbol for each named dimension. None when
    every dimension is fixed."""
    names = {dim for spec in specs for dim in spec.dims if isinstance(dim, str)}
    symbols = {name: torch.export.Dim(name, min=1, max=MAX_DYNAMIC) for name in names}
    if not names:
        return None
    return tuple(
        {i: symbols[dim] for i, dim in enumerate(spec.dims) if isinstance(dim, str)} for spec in specs
    )


def fixed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The specs with every dynamic dimension set to one."""
    return tuple(replace(spec, dims=spec.sizes(1)) for spec in specs)
