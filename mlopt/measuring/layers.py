"""Time by layer, before and after pruning: which layers did not get faster with their
MACs, and the likely reason."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from mlopt.model.capture import evaluating, no_cache

ROUNDS = 15
SLACK = 0.15
"""A layer is named when its time stayed this much above its MACs, as a share of the
dense time."""
LEAST_SHARE = 0.01
"""Layers below one percent of the dense time are not worth a line."""
FIXED_COST_S = 30e-6
"""Below this a call is mostly the cost of making it."""
BALANCE = 8.0
"""MACs for each byte moved, below which a CPU waits for memory."""


def time_layers(
    modules: list[nn.Module], inputs: tuple[Any, ...], paths: list[str], threads: int
) -> list[dict[str, float]]:
    """Seconds spent in each of these submodules during one forward pass, the median of
    some; the modules take turns."""
    was = torch.get_num_threads()
    torch.set_num_threads(threads)
    samples: list[dict[str, list[float]]] = [defaultdict(list) for _ in modules]
    try:
        with torch.inference_mode():
            for round_ in range(ROUNDS + 2):
                for module, sample in zip(modules, samples, strict=True):
                    spent = _one_pass(module, inputs, paths)
                    for path, seconds in spent.items() if round_ >= 2 else ():
                        sample[path].append(seconds)
    finally:
        torch.set_num_threads(was)
    return [{path: float(np.median(seconds)) for path, seconds in sample.items()} for sample in samples]


def _one_pass(module: nn.Module, inputs: tuple[Any, ...], paths: list[str]) -> dict[str, float]:
    begun: dict[str, float] = {}
    spent: dict[str, float] = defaultdict(float)
    handles = []
    for path in paths:
        child = module.get_submodule(path)

        def before(child: nn.Module, args: Any, path: str = path) -> None:
            begun[path] = time.perf_counter()

        def after(child: nn.Module, args: Any, output: Any, path: str = path) -> None:
            spent[path] += time.perf_counter() - begun[path]

        handles += [child.register_forward_pre_hook(before), child.register_forward_hook(after)]
    try:
        with evaluating(module), no_cache(module):
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return spent


@dataclass(frozen=True)
class SlowLayer:
    """A layer that lost MACs and kept its time. `macs`, `time`: what is left of them,
    as a share; `seconds` of one pass now."""

    layer: str
    macs: float
    time: float
    seconds: float
    reason: str


def slow_layers(
    dense: nn.Module,
    pruned: nn.Module,
    inputs: tuple[Any, ...],
    macs: dict[str, tuple[float, float]],
    threads: int,
) -> list[SlowLayer]:
    """Layers that lost MACs but not the time, slowest first.

    `inputs`: one sample is what a serving call looks like. `macs`: before and after, by
    module path; only paths that both modules have.
    """
    paths = [
        path for path, (before, after) in macs.items() if after < before and _both_have(dense, pruned, path)
    ]
    if not paths:
        return []
    was, now = time_layers([dense, pruned], inputs, paths, threads)
    total = sum(was.values())
    out = []
    for path in paths:
        before, after = macs[path]
        if path not in was or path not in now or was[path] < LEAST_SHARE * total:
            continue
        if now[path] / was[path] > after / before + SLACK:
            reason = _reason(pruned.get_submodule(path), after, now[path])
            out.append(SlowLayer(path, after / before, now[path] / was[path], now[path], reason))
    return sorted(out, key=lambda layer: -layer.seconds)


def _both_have(dense: nn.Module, pruned: nn.Module, path: str) -> bool:
    try:
        return bool(path) and type(dense.get_submodule(path)) is type(pruned.get_submodule(path))
    except AttributeError:
        return False


def _reason(layer: nn.Module, macs: float, seconds: float) -> str:
    """The likeliest of a few known causes; they are tried in the order of how sure they
    are."""
    if seconds < FIXED_COST_S:
        return (
            f"small: at {seconds * 1e6:.0f} µs most of a call is the cost of making it; a larger batch would"
            " show the gain"
        )
    if isinstance(layer, _ConvNd) and layer.groups > 1 and layer.groups == layer.in_channels:
        return "depthwise: bound by memory, not by arithmetic"
    widths = [layer.in_channels // layer.groups, layer.out_channels] if isinstance(layer, _ConvNd) else []
    widths += [layer.in_features, layer.out_features] if isinstance(layer, nn.Linear) else []
    odd = [width for width in widths if width % 8 and width > 8]
    if odd:
        return f"odd widths ({', '.join(map(str, odd))}): kernels work in multiples of 8; set round_to: 8"
    bytes_moved = 4.0 * sum(p.numel() for p in layer.parameters(recurse=False))
    if bytes_moved and macs / bytes_moved < BALANCE:
        return (
            f"memory-bound: {macs / bytes_moved:.1f} MACs for each byte of weights; a larger batch would show"
            " the gain"
        )
    narrow = min(widths, default=64)
    if narrow < 32:
        return f"narrow: at width {narrow} the vector units are not full"
    return "not explained: the kernel for this shape is less efficient"
