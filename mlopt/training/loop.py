"""The loop. It knows nothing of pruning or teachers: the objective is an argument, and so is the group of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlopt.data.sets import Batch, Part
from mlopt.errors import PassFailed
from mlopt.pruning.sparsity import masks_of, put_back
from mlopt.recipe.configs import Distill, Finetune, Train
from mlopt.training.objectives import Objective

Trainer = Train | Finetune | Distill
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Fit:
    """What training did. `losses`: mean loss of each epoch."""

    steps: int
    losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    def share(self, batch: Batch) -> Batch:
        """This process's slice of a global batch: contiguous, sizes differing by at most one."""
        if self.size == 1:
            return batch
        inputs, target = batch
        n = len(inputs[0])
        low, high = n * self.rank // self.size, n * (self.rank + 1) // self.size
        return tuple(tensor[low:high] for tensor in inputs), None if target is None else target[low:high]


def schedule(step: int, total: int, warmup: float) -> float:
    """Linear warm-up, then cosine decay to zero (Loshchilov and Hutter, arXiv 1608.03983), as a factor of the base rate."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def optimizer_of(module: nn.Module, config: Trainer) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum; one-dimensional weights are not decayed."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr)


def fit(module: nn.Module, part: Part, objective: Objective, config: Trainer, seed: int, device: str = "cpu",
        world: World = World(), progress: Progress = lambda line: None, sparse: Sequence[str] = ()) -> Fit:  # fmt: skip
    """Train `module` in place. Every process sees the same global batches and takes its slice, so N processes give one process's weights.
    `sparse`: names of weights whose zeros stay zeros.

    Raises `PassFailed` when the loss becomes NaN or infinite, `DataError` when labels are needed and missing.
    """
    if not any(p.requires_grad for p in module.parameters()):
        raise PassFailed("the model has no parameter that requires a gradient", "set requires_grad on what should train")
    torch.manual_seed(seed)
    begin = time.perf_counter()
    per_epoch = sum(1 for batch in part.batches(config.batch_size) if _usable(module, batch, world))
    total = min(per_epoch * config.epochs, config.max_steps or per_epoch * config.epochs)
    if not total:
        raise PassFailed("the training data has no batch of two or more samples", "give more data or a smaller batch_size")
    module.train()
    inner = module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module
    optimizer = optimizer_of(inner, config)
    masks = masks_of(inner, sparse)
    low, high = config.part
    whole_schedule = round(total / (high - low)) if high > low else total
    losses: list[float] = []
    step = 0
    for epoch in range(config.epochs):
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in part.batches(config.batch_size, seed=seed + epoch):
            if step >= total or not _usable(module, batch, world):
                continue
            whole = len(batch[0][0])
            inputs, target = world.share(batch)
            inputs = tuple(tensor.to(device) for tensor in inputs)
            target = None if target is None else target.to(device)
            loss = objective(module, inputs, target)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise PassFailed(f"the loss became {value} at step {step}", f"lower the learning rate (lr: {config.lr:g}) or check the data")
            # DDP averages over processes; weighting by the slice makes it the mean over the global batch.
            (loss * (len(inputs[0]) * world.size / whole)).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(inner.parameters(), config.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * schedule(round(low * whole_schedule) + step, whole_schedule, config.warmup)
            optimizer.step()
            put_back(inner, masks)
            optimizer.zero_grad(set_to_none=True)
            sums += torch.tensor([value * len(inputs[0]), len(inputs[0])], dtype=torch.float64)
            step += 1
        if not sums[1]:
            break
        if world.size > 1:
            moved = sums.to(device=device, dtype=torch.float32 if device != "cpu" else torch.float64)
            dist.all_reduce(moved)
            sums = moved.double().cpu()
        losses.append(float(sums[0] / sums[1]))
        progress(f"epoch {epoch + 1}/{config.epochs}  loss {losses[-1]:.4f}")
    return Fit(step, tuple(losses), time.perf_counter() - begin)


def _usable(module: nn.Module, batch: Batch, world: World) -> bool:
    """A last batch with fewer samples than processes, or a single one under batch normalisation, has no gradient to give."""
    n = len(batch[0][0])
    return n >= world.size and (n > 1 or not any(isinstance(child, _BatchNorm) for child in module.modules()))


@torch.no_grad()
def recalibrate_batch_norm(module: nn.Module, part: Part, batches: int = 16, size: int = 64, seed: int = 0) -> bool:
    """Estimate batch-norm statistics afresh as a plain average over some batches; false when there is no batch norm to estimate.

    After a cut of half the channels this alone lifts a network from chance to most of its accuracy, at no cost.
    """
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm) and child.track_running_stats]
    if not norms:
        return False
    modes = {child: child.training for child in module.modules()}
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for index, (inputs, _) in enumerate(part.batches(size, seed=seed)):
        if index >= batches or len(inputs[0]) < 2:
            break
        module(*inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for child, mode in modes.items():
        child.training = mode
    return True
