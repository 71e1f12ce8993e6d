"""How long planning takes, and how much memory: ResNet-50, ViT-B, and a curve to a
thousand layers. One process a measurement."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common import write

BLOCKS = (10, 25, 50, 100, 200, 333)


def model_of(name: str) -> tuple[nn.Module, torch.Tensor]:
    """`resnet50`, `vit_base`, or `deep:N` with N blocks of three convolutions."""
    from benchmarks.pruning.models import deep, resnet50
    from recipes.networks import vit_base

    torch.manual_seed(0)
    if name.startswith("deep:"):
        return deep(int(name.partition(":")[2])).eval(), torch.randn(1, 3, 32, 32)
    return ({"resnet50": resnet50, "vit_base": vit_base}[name]().eval(), torch.randn(1, 3, 224, 224))


def peak_bytes() -> int:
    """The most memory this process has held so far."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024


def reset_peak() -> int:
    """Forget the peak; the memory held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def measure(tool: str, name: str) -> dict[str, Any]:
    """In this process: seconds to plan (capture, couplings, widths), to prune with
    proof, and memory above the model, relative to it."""
    torch.set_num_threads(1)
    module, x = model_of(name)
    layers = sum(isinstance(child, (nn.Conv2d, nn.Linear)) for child in module.modules())
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    with torch.no_grad():
        module(x)
    warm_up(tool)
    before = reset_peak()
    begin = time.perf_counter()
    if tool == "mlopt":
        from mlopt.pruning.pruner import Pruner

        pruner = Pruner(module, (x,))
        pruner.choose("macs:0.5")
        planned, memory = time.perf_counter() - begin, peak_bytes() - before
        report = pruner.prune("macs:0.5").report
        left = report.reached
    else:
        from benchmarks.pruning.peer import macs_of, prune_at

        made = prune_at(module, (x,), 0.3)
        planned, memory = time.perf_counter() - begin, peak_bytes() - before
        left = macs_of(made, (x,)) / macs_of(module, (x,))
    whole = time.perf_counter() - begin
    return {
        "tool": tool,
        "model": name,
        "layers": layers,
        "parameters": sum(p.numel() for p in module.parameters()),
        "left": left,
        "plan_s": planned,
        "prune_s": whole,
        "memory_over_model": (size + memory) / size,
        "memory_pruning_over_model": (size + peak_bytes() - before) / size,
    }


def warm_up(tool: str) -> None:
    """The first capture of a process loads half of torch: not what grows with a
    model."""
    small, x = model_of("deep:2")
    if tool == "mlopt":
        from mlopt.pruning.pruner import prune_module

        prune_module(small, (x,), "macs:0.5")
    else:
        from benchmarks.pruning.peer import prune_at

        prune_at(small, (x,), 0.3)


def main() -> None:
    """One child a row, and the exponent of the curve."""
    if len(sys.argv) == 3:
        print("ROW" + json.dumps(measure(sys.argv[1], sys.argv[2])))
        return
    rows = []
    for tool in ("mlopt", "torch-pruning"):
        for name in ("resnet50", "vit_base", *(f"deep:{blocks}" for blocks in BLOCKS)):
            try:
                child = subprocess.run(
                    [sys.executable, "-m", "benchmarks.pruning.planning", tool, name],
                    capture_output=True,
                    text=True,
                    timeout=150,
                )
                found = [line for line in child.stdout.splitlines() if line.startswith("ROW")]
                rows.append(
                    json.loads(found[-1][3:])
                    if found
                    else {"tool": tool, "model": name, "failed": child.stderr.strip().splitlines()[-1][:200]}
                )
            except subprocess.TimeoutExpired:
                rows.append({"tool": tool, "model": name, "failed": "over 150 s"})
            print(rows[-1], flush=True)
    growth = {}
    for tool in ("mlopt", "torch-pruning"):
        curve = [
            (row["layers"], row["plan_s"])
            for row in rows
            if row["tool"] == tool and row["model"].startswith("deep:") and "plan_s" in row
        ]
        if len(curve) > 2:
            layers, seconds = np.log(np.array(curve)).T
            growth[tool] = float(np.polyfit(layers, seconds, 1)[0])
    write(
        "pruning-planning",
        {"command": "python -m benchmarks.pruning.planning", "growth_exponent": growth, "rows": rows},
    )


if __name__ == "__main__":
    main()
