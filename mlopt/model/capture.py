"""The ATen graph of a module, through `torch.export`: what the coupling algebra and the counters read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from mlopt.errors import PassFailed, first_line
from mlopt.quiet import quiet


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Export `nn.MultiheadAttention` as plain operators, not as the fused inference kernel that no rule can read."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode, each submodule put back into its own mode afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield module
    finally:
        for child, mode in modes.items():
            child.training = mode


def capture(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    keep: Callable[[str], bool] = lambda name: False,
    dynamic_shapes: Any = None,
) -> torch.export.ExportedProgram:
    """Export `module` in evaluation mode and decompose every operator for which `keep(name)` is false.

    `inputs` are positional. Raises `PassFailed` with torch.export's own words when the model cannot be captured.
    """
    with evaluating(module), plain_attention(), quiet():
        try:
            program = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes, strict=False)
            table = torch.export.default_decompositions()
            # The table is a mapping of its own kind: deleting from it is how an operator is kept whole.
            for op in [op for op in table if isinstance(op, torch._ops.OpOverload) and keep(op._schema.name.split("::")[1])]:
                del table[op]
            decomposed: torch.export.ExportedProgram = program.run_decompositions(table)
            return decomposed
        except Exception as error:
            raise PassFailed(
                f"torch.export cannot capture {type(module).__name__}: {type(error).__name__}: {first_line(error)}",
                "data-dependent `if` or `.item()` in forward is the usual cause; rewrite it with torch.where or torch.cond",
            ) from error
