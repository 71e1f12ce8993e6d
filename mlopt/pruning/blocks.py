"""Depth: whole residual blocks are left out, those first whose absence changes the
output least.

This is what makes a deep transformer faster: narrower layers of a deep network are
still that many layers. A block qualifies when its container holds others of its class
and it gives back what it is given, in the same shape, as residual blocks do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlopt.model.capture import capturable
from mlopt.model.outputs import first_tensors
from mlopt.model.replacements import SKIPPED, first_argument
from mlopt.model.surgery import Surgery
from mlopt.pruning.proof import furthest


@dataclass(frozen=True)
class Block:
    """One block that can go. `places`: 0 when it returns a tensor, else the length of
    the tuple.

    `importance`: how much the block changes what it is given; after `weigh`, how much
    the output changes without it.
    """

    path: str
    places: int
    importance: float = 0.0


def candidates(module: nn.Module, inputs: tuple[Any, ...]) -> list[Block]:
    """Blocks that take a tensor and return one of its shape, in the order they run."""
    repeated = {}
    for path, container in module.named_modules():
        if isinstance(container, (nn.ModuleList, nn.Sequential)):
            kinds = [type(child) for child in container]
            for key, child in container.named_children():
                if (
                    kinds.count(type(child)) > 1
                    and any(True for _ in child.parameters())
                    and any(True for _ in child.children())
                ):
                    repeated[child] = f"{path}.{key}" if path else key
    found: dict[nn.Module, Block | None] = {}

    def seen(child: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = first_argument(args, kwargs)
        tail = output[1:] if isinstance(output, tuple) else ()
        first = output[0] if isinstance(output, tuple) and output else output
        fits = (
            isinstance(given, torch.Tensor)
            and isinstance(first, torch.Tensor)
            and given.shape == first.shape
            and given.dtype == first.dtype
            and all(item is None for item in tail)
            and child not in found  # called twice: a shared layer
        )
        found[child] = (
            Block(repeated[child], len(output) if isinstance(output, tuple) else 0, _relative(given, first))
            if fits and given is not None
            else None
        )

    handles = [child.register_forward_hook(seen, with_kwargs=True) for child in repeated]
    try:
        _outputs(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    blocks = [block for block in found.values() if block is not None]
    inner = {other.path for other in blocks}
    return [
        block for block in blocks if not any(path.startswith(f"{block.path}.") for path in inner)
    ]  # blocks, not stages of them


def _outputs(module: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    with capturable(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return first_tensors(module(*inputs))


@contextlib.contextmanager
def bypassed(module: nn.Module, blocks: list[Block]) -> Iterator[None]:
    """The module with some blocks handing on what they were given: the reference of the
    proof, and how importance is measured.
    """

    def instead(places: int) -> Any:
        def hook(child: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            given = first_argument(args, kwargs)
            return (given, *output[1:]) if places else given

        return hook

    handles = [
        module.get_submodule(b.path).register_forward_hook(instead(b.places), with_kwargs=True)
        for b in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def weigh(module: nn.Module, inputs: tuple[Any, ...], blocks: list[Block]) -> list[Block]:
    """The blocks with their importance: the relative change of the output when one is
    left out alone.

    A direct measurement of what ShortGPT (arXiv 2403.03853) estimates from the angle
    between a block's input and output.
    """
    whole = _outputs(module, inputs)
    out = []
    for block in blocks:
        with bypassed(module, [block]):
            without = _outputs(module, inputs)
        change = max((_relative(a, b) for a, b in zip(without, whole, strict=True)), default=0.0)
        out.append(Block(block.path, block.places, change))
    # A head of zeros, as some networks start with, hides every change: then by how much
    # a block changes what it is given.
    return out if any(block.importance for block in out) else blocks


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    finite = torch.isfinite(b)
    return float((a - b)[finite].double().norm() / b[finite].double().norm().clamp_min(1e-30))


def skip(blocks: list[Block]) -> Surgery:
    """The surgery that leaves these blocks out."""
    surgery = Surgery()
    for block in blocks:
        surgery.modules[block.path] = SKIPPED
        surgery.set(block.path, "places", 0, block.places)
    return surgery


def prove_depth(
    dense: nn.Module, pruned: nn.Module, blocks: list[Block], inputs: tuple[Any, ...]
) -> tuple[float, float]:
    """(largest difference to the dense module with the blocks bypassed, largest change
    that bypassing made), both relative.
    """
    got, plain = _outputs(pruned, inputs), _outputs(dense, inputs)
    with bypassed(dense, blocks):
        want = _outputs(dense, inputs)
    return furthest(got, want), furthest(want, plain)
