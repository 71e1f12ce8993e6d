"""The training loop. It knows nothing of teachers: the objective is an argument, and so
is the group of processes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlopt.data.sets import Batch, Part, check_batch
from mlopt.errors import PassFailed
from mlopt.model.capture import evaluating
from mlopt.model.outputs import logits_of
from mlopt.model.tensors import by_name
from mlopt.pruning.sparsity import masks_of, put_back
from mlopt.recipe.configs import Distill, Finetune, Train
from mlopt.training.objectives import Objective

Trainer = Train | Finetune | Distill
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Fit:
    """What training did. `steps`: of the optimizer; `losses`: mean loss of each epoch;
    `seconds`: in all."""

    steps: int
    losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class World:
    """This process among those that train together (`rank` of `size`), and the device
    that it trains on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def share(self, batch: Batch) -> Batch:
        """This process's slice of a global batch: contiguous, sizes differing by at
        most one."""
        if self.size == 1:
            return batch
        inputs, target = batch
        n = len(inputs[0])
        low, high = n * self.rank // self.size, n * (self.rank + 1) // self.size
        return tuple(tensor[low:high] for tensor in inputs), None if target is None else target[low:high]


def schedule(step: int, total: int, warmup: float) -> float:
    """Linear warm-up, then cosine decay to zero (Loshchilov and Hutter, arXiv
    1608.03983), as a factor of the base rate."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def optimizer_of(module: nn.Module, config: Trainer) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum; one-dimensional weights are not decayed."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr)


def fit(
    module: nn.Module,
    part: Part,
    objective: Objective,
    config: Trainer,
    seed: int,
    world: World = World(),
    progress: Progress = lambda line: None,
    sparse: Sequence[str] = (),
) -> Fit:
    """Train `module` in place, on `world.device`, where it must already be.

    Every process sees the same global batches and takes its slice, so N processes give
    one process's weights. An epoch reads every sample once. `sparse`: names of weights
    whose zeros stay zeros.

    Raises `PassFailed` when the loss becomes NaN or infinite, `DataError` when labels
    are needed and missing, or cannot belong to this model.
    """
    if not any(p.requires_grad for p in module.parameters()):
        raise PassFailed(
            "the model has no parameter that requires a gradient", "set requires_grad on what should train"
        )
    torch.manual_seed(seed)
    begin = time.perf_counter()
    least = least_batch(module, world)
    per_epoch = steps_per_epoch(part, config.batch_size, least)
    total = min(per_epoch * config.epochs, config.max_steps or per_epoch * config.epochs)
    if not total:
        raise PassFailed(
            "the training data has no batch of two or more samples", "give more data or a smaller batch_size"
        )
    module.train()
    inner = module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module
    optimizer = optimizer_of(inner, config)
    weights, masks = by_name(inner), masks_of(inner, sparse)
    low, high = config.part
    whole_schedule = round(total / (high - low)) if high > low else total
    losses: list[float] = []
    step = 0
    for epoch in range(config.epochs):
        if step >= total:
            break
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in part.batches(config.batch_size, seed=seed + epoch):
            whole = len(batch[0][0])
            if whole < least:
                continue
            inputs, target = world.share(batch)
            inputs = tuple(tensor.to(world.device) for tensor in inputs)
            target = None if target is None else target.to(world.device)
            with _labels_checked(module, part.name, target if epoch == 0 else None):
                loss = objective(module, inputs, target)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise PassFailed(
                    f"the loss became {value} at step {step}",
                    f"lower the learning rate (lr: {config.lr:g}) or check the data",
                )
            # DDP averages over processes; weighting by the slice makes it the mean over
            # the global batch.
            (loss * (len(inputs[0]) * world.size / whole)).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(inner.parameters(), config.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * schedule(
                    round(low * whole_schedule) + step, whole_schedule, config.warmup
                )
            optimizer.step()
            put_back(weights, masks)
            optimizer.zero_grad(set_to_none=True)
            sums += torch.tensor([value * len(inputs[0]), len(inputs[0])], dtype=torch.float64)
            step += 1
            if step >= total:
                break
        if not sums[1]:
            break
        if world.size > 1:
            moved = sums.to(
                device=world.device, dtype=torch.float32 if world.device != "cpu" else torch.float64
            )
            dist.all_reduce(moved)
            sums = moved.double().cpu()
        losses.append(float(sums[0] / sums[1]))
        progress(f"epoch {epoch + 1}/{config.epochs}  loss {losses[-1]:.4f}")
    return Fit(step, tuple(losses), time.perf_counter() - begin)


def least_batch(module: nn.Module, world: World) -> int:
    """The smallest batch that has a gradient to give: a sample for each process, and
    two under batch normalisation."""
    return max(world.size, 2 if any(isinstance(child, _BatchNorm) for child in module.modules()) else 1)


def steps_per_epoch(part: Part, batch_size: int, least: int) -> int:
    """How many batches of at least `least` samples an epoch has; from lengths alone
    wherever they say it."""
    sizes = part.batch_sizes(batch_size)
    if sizes is None:
        count = part.batch_count(batch_size)
        if count is not None and least <= 1:
            return count
        # Without lengths only a pass over the data can tell: one before training, not
        # one an epoch.
        sizes = [len(inputs[0]) for inputs, _ in part.batches(batch_size)]
    return sum(size >= least for size in sizes)


@contextlib.contextmanager
def _labels_checked(module: nn.Module, name: str, target: torch.Tensor | None) -> Iterator[None]:
    """Hold the labels of a batch against the outputs that the objective gets, before
    the loss reads either.

    Raises `DataError` for labels that this model cannot have; a loss would answer them
    with an index error, or not at all.
    """
    if target is None:
        yield
        return
    handle = module.register_forward_hook(
        lambda module, inputs, output: check_batch(name, target, logits_of(output))
    )
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def recalibrate_batch_norm(
    module: nn.Module, part: Part, batches: int = 16, size: int = 64, seed: int = 0
) -> bool:
    """Estimate batch-norm statistics again, as a plain average over some batches; false
    when there is no batch norm.

    After a cut of half the channels this alone lifts a network from chance to most of
    its accuracy, at no cost.
    """
    norms = [
        child for child in module.modules() if isinstance(child, _BatchNorm) and child.track_running_stats
    ]
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    with evaluating(module):
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
    return True
