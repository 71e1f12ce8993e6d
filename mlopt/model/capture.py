"""The ATen graph of a module, through `torch.export`: what the coupling algebra and the
counters read."""

from __future__ import annotations

import contextlib
import operator
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlopt.errors import PassFailed, first_line
from mlopt.system.quiet import quiet

LIBRARY = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))
STANDARD = str(Path(contextlib.__file__).parent)
"""Frames of torch, of mlopt and of Python itself are not where a model's author can
change anything."""


def user_line(error: BaseException) -> str:
    """`file.py:7 in forward: if y.sum() > 0:`, the deepest line of the model's own code
    in a traceback; empty when there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith((*LIBRARY, "<"))
        and (not frame.filename.startswith(STANDARD) or "site-packages" in frame.filename)
    ]
    if not own or own[-1].name == "<module>":
        return ""
    last = own[-1]
    return f"{last.filename}:{last.lineno} in {last.name}: {last.line}"


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Export `nn.MultiheadAttention` as plain operators, not as the fused inference
    kernel, for which there is no rule."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode, each submodule put back into its own mode
    afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield module
    finally:
        for child, mode in modes.items():
            child.training = mode


@contextlib.contextmanager
def no_cache(module: nn.Module) -> Iterator[None]:
    """Networks of the transformers library return a cache of keys and values by
    default, which no graph can hold: switch it off."""
    configs = {
        id(config): config
        for child in module.modules()
        if (config := getattr(child, "config", None)) is not None
    }
    caching = [config for config in configs.values() if getattr(config, "use_cache", None) is True]
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for config in caching:
            config.use_cache = True


@contextlib.contextmanager
def capturable(*modules: nn.Module) -> Iterator[None]:
    """Puts modules into the state that a graph can capture, for a while: evaluation
    mode, plain attention, no cache in the outputs."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(plain_attention())
        for module in modules:
            stack.enter_context(evaluating(module))
            stack.enter_context(no_cache(module))
        yield


def batch_is_free(
    module: nn.Module, inputs: tuple[Any, ...], keep: Callable[[Any], bool]
) -> torch.export.ExportedProgram:
    """A capture whose first dimension of every input may be any size, if the model
    allows. Raises `PassFailed`."""

    def at_least_two(x: Any) -> Any:  # torch.export takes a size of one as fixed
        return torch.cat([x, x]) if isinstance(x, torch.Tensor) and x.ndim and x.shape[0] == 1 else x

    shapes = tuple(
        {0: torch.export.Dim.AUTO} if isinstance(x, torch.Tensor) and x.ndim else None for x in inputs
    )
    return capture(module, tuple(at_least_two(x) for x in inputs), keep, shapes)


SIZES = frozenset({operator.getitem, operator.mul, operator.add, operator.sub, operator.floordiv})


def _may_stay(node: torch.fx.Node, keep: Callable[[Any], bool]) -> bool:
    return node.op in ("placeholder", "output") or (
        node.op == "call_function" and (node.target in SIZES or keep(node.target))
    )


def capture(
    module: nn.Module,
    inputs: tuple[Any, ...],
    keep: Callable[[Any], bool] = lambda target: False,
    dynamic_shapes: Any = None,
) -> torch.export.ExportedProgram:
    """Export `module` in evaluation mode and decompose every operator for which
    `keep(operator)` is false.

    A graph in which all may stay is returned as it is: decomposing takes most of the
    time and memory of a capture.

    `inputs` are positional. Raises `PassFailed` with torch.export's own words when the
    model cannot be captured.
    """
    with capturable(module), quiet():
        try:
            program = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes, strict=False)
            if all(_may_stay(node, keep) for node in program.graph.nodes):
                return program
            table = torch.export.default_decompositions()
            # The table is a mapping of its own kind: deleting from it is how an
            # operator is kept whole.
            for op in [op for op in table if isinstance(op, torch._ops.OpOverload) and keep(op)]:
                del table[op]
            decomposed: torch.export.ExportedProgram = program.run_decompositions(table)
            return decomposed
        except Exception as error:
            place = user_line(error)
            if "data-dependent" in str(error):
                raise PassFailed(
                    f"torch.export cannot capture {type(module).__name__}: what runs depends on the data at"
                    f" {place or 'an unknown line'}",
                    "choose with torch.where or torch.cond there, or take the value (`.item()`, a length)"
                    " from an argument or attribute",
                ) from error
            raise PassFailed(
                f"torch.export cannot capture {type(module).__name__}{f' ({place})' if place else ''}:"
                f" {type(error).__name__}: {first_line(error)}",
                "rewrite that line with operators of torch; data-dependent `if`, `.item()` and `.numpy()` are"
                " the usual causes",
            ) from error
