"""Module to TorchScript file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlopt.errors import PassFailed, first_line
from mlopt.model.capture import capturable
from mlopt.model.graph import scriptable
from mlopt.system.quiet import quiet


@dataclass(frozen=True)
class TorchScriptExport:
    """What was written. `how`: `script` or `trace`; `why_not_scripted`: the compiler's
    first line, or empty."""

    how: str
    why_not_scripted: str


def export_torchscript(module: nn.Module, inputs: tuple[Any, ...], path: Path) -> TorchScriptExport:
    """Write a module (in evaluation mode, without gradients), scripted, or traced on
    `inputs` where scripting fails. Raises `PassFailed`."""
    if isinstance(module, torch.fx.GraphModule):
        module = scriptable(module)
    how, why = "script", ""
    with quiet(), torch.no_grad(), capturable(module):
        try:
            program: Any = torch.jit.freeze(torch.jit.script(module))
            program(*inputs)  # what compiles may still not run
        except Exception as error:  # the script compiler raises its own many kinds
            how, why = "trace", first_line(error).strip() or type(error).__name__
            try:
                traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
                    module, inputs, check_trace=False
                )
                program = torch.jit.freeze(traced)
            except Exception as failure:
                line = first_line(failure)
                raise PassFailed(
                    f"TorchScript can neither script nor trace the model: {line}", "leave out torchscript"
                ) from failure
        # Through memory: torch.jit.save ends the whole process when a disk is full.
        path.write_bytes(program.save_to_buffer())
    return TorchScriptExport(how, why)
