"""`torchscript`: module to TorchScript file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from mlopt import recipe
from mlopt.artifact import Artifact, Format
from mlopt.context import RunContext
from mlopt.errors import PassFailed, first_line
from mlopt.model import bundle
from mlopt.model.capture import plainly
from mlopt.model.graph import scriptable
from mlopt.passes.base import PassResult
from mlopt.quiet import quiet

FILE = "model.torchscript.pt"


@dataclass(frozen=True)
class TorchScriptPass:
    config: recipe.TorchScript
    takes: ClassVar[Format] = Format.MODULE
    gives: ClassVar[Format] = Format.TORCHSCRIPT
    version: ClassVar[int] = 1

    def __call__(self, artifact: Artifact, stage: Path, run: RunContext) -> PassResult:
        module, _ = bundle.read(artifact.path, run.trust)
        module.eval().requires_grad_(False)
        if isinstance(module, torch.fx.GraphModule):
            module = scriptable(module)
        inputs, _ = run.samples(artifact, 2)
        how, why = "script", ""
        with quiet(), torch.no_grad(), plainly(module):
            try:
                program: Any = torch.jit.freeze(torch.jit.script(module))
                program(*inputs)  # what compiles may still not run
            except Exception as error:  # the script compiler raises its own many kinds
                lines = [line for line in str(error).splitlines() if line.strip()]
                how, why = "trace", lines[0].strip() if lines else type(error).__name__
                try:
                    program = torch.jit.freeze(torch.jit.trace(module, inputs, check_trace=False))  # type: ignore[no-untyped-call]
                except Exception as failure:
                    line = first_line(failure)
                    raise PassFailed(f"TorchScript can neither script nor trace the model: {line}", "leave out torchscript") from failure
            # Through memory: torch.jit.save ends the whole process when a disk is full.
            (stage / FILE).write_bytes(program.save_to_buffer())
        made = Artifact(FILE, Format.TORCHSCRIPT, stage, FILE, "", artifact.inputs)
        return PassResult(made, {"how": how, "why_not_scripted": why, "summary": how})
