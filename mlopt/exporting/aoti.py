"""Module to AOTInductor package. Needs a C++ compiler, and takes its time."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from mlopt.artifact import TensorSpec
from mlopt.errors import BackendMissing, PassFailed, first_line
from mlopt.model.capture import capturable
from mlopt.model.inputs import dynamic_shapes, synthetic
from mlopt.system.quiet import quiet


def export_aoti(module: nn.Module, specs: tuple[TensorSpec, ...], path: Path) -> None:
    """Compile a module (in evaluation mode, without gradients) into a package. Raises
    `BackendMissing` or `PassFailed`."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise BackendMissing("a C++ compiler, which AOTInductor needs,", "apt-get install g++")
    with quiet(), torch.no_grad(), capturable(module):
        try:
            program = torch.export.export(
                module, synthetic(specs), dynamic_shapes=dynamic_shapes(specs), strict=False
            )
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        except Exception as error:
            line = first_line(error)
            raise PassFailed(
                f"AOTInductor cannot compile the model: {type(error).__name__}: {line}", "leave out aoti"
            ) from error
