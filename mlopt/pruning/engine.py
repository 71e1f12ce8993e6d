"""Structured pruning of one module, from capture to proof."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from mlopt.errors import PassFailed, first_line
from mlopt.model.capture import capture
from mlopt.pruning import mend
from mlopt.pruning.budget import Amount, Widths, choose, solve
from mlopt.pruning.coupling import Counter, Counts, Group, find_groups, has_rule, propagate
from mlopt.pruning.importance import mean_gradients, score_classes
from mlopt.pruning.proof import Proof, prove
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.surgery import LEAVES, Surgery, apply, holders, leaf_changes, plan_weights, relink

CLOSE = 0.03
"""A budget counts as hit within 3 points."""


@dataclass(frozen=True)
class PruneReport:
    """What was asked, what was reached, and how it was checked. Shares are of the dense module."""

    amount: str
    importance: str
    asked: float
    reached: float
    rung: str
    rung_reason: str
    before: Counts
    after: Counts
    proof: Proof
    groups: list[dict[str, Any]]
    unknown_operators: dict[str, int]
    note: str = ""


@dataclass(frozen=True)
class Pruned:
    """A pruned copy, the cut as data, and the report."""

    module: nn.Module
    plan: Surgery
    report: PruneReport


@dataclass
class Declined(Exception):
    """There was nothing to cut; `reason` says why, as data for the record."""

    reason: str


@dataclass
class Analysis:
    """A captured module and what can be cut in it."""

    module: nn.Module
    flow: Propagation
    groups: list[Group]
    batch: int
    pinned: set[int] = field(default_factory=set)

    def counter(self, groups: list[Group] | None = None) -> Counter:
        names = {name for name, _ in self.module.named_parameters()}
        return Counter(self.flow, self.groups if groups is None else groups, names, self.batch)


def analyse(module: nn.Module, inputs: tuple[torch.Tensor, ...], batch: int | None = None) -> Analysis:
    """Capture and label. `batch`: samples in `inputs` (default: the first dimension of the first input)."""
    program = capture(module, inputs, keep=has_rule)
    flow = propagate(program)
    _unite_aliases(module, flow)
    _pin_recurrent(module, flow)
    _pin_computed(module, flow)
    size = batch if batch is not None else (int(inputs[0].shape[0]) if inputs and inputs[0].ndim else 1)
    return Analysis(module, flow, find_groups(flow), max(1, size))


def _unite_aliases(module: nn.Module, flow: Propagation) -> None:
    """A weight that two names share reaches the graph under one or both: unite their labels so that they are cut alike."""
    first: dict[int, str] = {}
    for name, _, _, tensor in holders(module):
        if name not in flow.weights:
            continue
        other = first.setdefault(id(tensor), name)
        if other != name:
            for a, b in zip(flow.weights[other], flow.weights[name], strict=True):
                flow.union(a, b)


def _pin_recurrent(module: nn.Module, flow: Propagation) -> None:
    """A recurrent layer's state has one width for all its gates, its initial state and its output: only its input may be cut."""
    for path, child in module.named_modules():
        if isinstance(child, nn.RNNBase):
            for name, _ in child.named_parameters(prefix=path, recurse=False):
                for dim, labels in enumerate(flow.weights.get(name, [])):
                    if not (dim == 1 and name.rpartition(".")[2].startswith("weight_ih_l0")):
                        flow.pin(labels)


def _pin_computed(module: nn.Module, flow: Propagation) -> None:
    """Weights that a parametrization or a pre-forward hook computes from others (weight_norm, spectral_norm) are left whole.

    Masking such a weight's source gives 0/0 or another norm, so a cut could not be proved.
    """
    for path, child in module.named_modules():
        if parametrize.is_parametrized(child) or child._forward_pre_hooks:
            prefix = f"{path}." if path else ""
            for name, dims in flow.weights.items():
                local = name.removeprefix(prefix)
                if name.startswith(prefix) and (local.startswith("parametrizations.") or "." not in local):
                    flow.pin(*dims)


def prune_module(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    amount: str = "macs:0.5",
    *,
    importance: str = "l2",
    spread: str = "uniform",
    round_to: int = 8,
    floor: float = 0.1,
    losses: Iterable[Callable[[], torch.Tensor]] = (),
) -> Pruned:
    """Cut a copy of `module` to the budget and prove it.

    `inputs`: positional example inputs, on which the proof runs. `losses`: closures for `importance="taylor"`. Raises `UsageError` for a
    bad amount, `Declined` when there is nothing to cut, `PassFailed` when no rung of the ladder can be proved.
    """
    budget = Amount.parse(amount)
    found = analyse(module, inputs)
    if not found.groups:
        raise Declined(_why_nothing(found.flow))
    gradients = mean_gradients(module, losses) if importance == "taylor" else None
    weights = {name: tensor for name, _, _, tensor in holders(module)}
    reason, problem = "", ""
    for rung in ("module", "module without resized groups"):
        groups = found.groups if rung == "module" else find_groups(found.flow, found.pinned)
        if not groups:
            break
        scores = score_classes(found.flow, groups, weights, importance, gradients)
        counter = found.counter(groups)
        widths = solve(counter, groups, scores, budget, round_to, floor, spread)
        dropped = choose(groups, scores, widths, len(found.flow.labels))
        if not dropped.any():
            raise Declined(f"every width is already at its floor or below two multiples of {round_to}; lower round_to in the recipe")
        outcome = _cut(found, dropped, inputs)
        if isinstance(outcome, tuple):
            pruned, surgery, proof = outcome
            own_tensors(pruned, weights.values())
            totals = np.array([len(group.classes) for group in groups], dtype=float)
            before, after = counter.of_widths(totals), counter.of_mask(dropped, widths.kept.astype(float))
            reached = getattr(after, budget.metric) / getattr(before, budget.metric)
            report = PruneReport(
                amount=str(budget),
                importance=importance,
                asked=widths.asked,
                reached=reached,
                rung=rung,
                rung_reason=reason,
                before=before,
                after=after,
                proof=proof,
                groups=[
                    {"name": g.name, "before": len(g.classes) * g.unit, "after": int(k) * g.unit, "unit": g.unit}
                    for g, k in zip(groups, widths.kept.tolist(), strict=True)
                ],
                unknown_operators=found.flow.unknown,
                note=_missed(widths, reached, budget),
            )
            return Pruned(pruned, surgery, report)
        problem = outcome
        reason = f"cutting sizes that forward has written in could not be mended: {outcome}"
        found.pinned |= _resized_labels(found, dropped)
    if problem and not groups:
        raise Declined(f"every width is written into forward and could not be mended: {problem}")
    raise PassFailed(f"the pruned module could not be proved equal to the masked one: {problem}", "please report the model's architecture")


def _why_nothing(flow: Propagation) -> str:
    if not flow.producers:
        return "the model has no convolution, linear layer or embedding"
    if flow.unknown:
        return f"every width touches the input, the output or an operator without a rule ({', '.join(sorted(flow.unknown))})"
    return "every width is fixed by the network's input, its output or a normalisation over it"


def _missed(widths: Widths, reached: float, budget: Amount) -> str:
    if abs(reached - widths.asked) <= CLOSE:
        return ""
    limits = f"the nearest that the couplings, the floor and the rounding of widths allow (the least is {widths.floor:.3f})"
    return f"asked for {widths.asked:.3f} of the {budget.metric}, reached {reached:.3f}: {limits}"


def _cut(found: Analysis, dropped: NDArray[np.bool_], inputs: tuple[torch.Tensor, ...]) -> tuple[nn.Module, Surgery, Proof] | str:
    """Apply, mend and prove; a string says why nothing could be proved."""
    base = plan_weights(found.flow, dropped)
    leaf_changes(found.module, base, _kept_heads(found.module, base))
    candidates = mend.find_candidates(found.module, found.flow, dropped)
    problem = ""
    for chosen in mend.proposals(candidates):
        surgery = mend.with_candidates(base, chosen)
        pruned = apply(share_copy(found.module), surgery)
        try:
            proof = prove(found.module, pruned, surgery, inputs)
        except Exception as error:  # whatever forward raises when a size does not fit
            problem = problem or f"{type(error).__name__}: {first_line(error)}"
            continue
        if proof.holds:
            return pruned, surgery, proof
        problem = f"outputs differ by {proof.error:.2e} of the largest (tolerance {proof.tolerance:.0e})"
    return problem or "no proposal ran"


def share_copy(module: nn.Module) -> nn.Module:
    """A deep copy whose tensors are the original's: surgery replaces tensors and never writes into them."""
    memo = {id(tensor): tensor for _, _, _, tensor in holders(module)}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # whatever an attribute of the user's module makes of being copied
        raise PassFailed(
            f"{type(module).__name__} cannot be copied: {first_line(error) or type(error).__name__}",
            "torch.nn.utils.weight_norm is one cause: use torch.nn.utils.parametrizations.weight_norm",
        ) from error


def own_tensors(module: nn.Module, foreign: Iterable[torch.Tensor]) -> None:
    """Copy what the cut left shared with the dense module, so that training one does not change the other."""
    shared = {id(tensor) for tensor in foreign}
    copies: dict[int, torch.Tensor] = {}
    for _, table, key, tensor in list(holders(module)):
        if id(tensor) in shared:
            if id(tensor) not in copies:
                new = tensor.detach().clone()
                copies[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            table[key] = copies[id(tensor)]
    relink(module)


def _kept_heads(module: nn.Module, surgery: Surgery) -> dict[str, int]:
    """Attention modules whose heads were cut: the output projection's columns say how many are left."""
    out = {}
    for path, child in module.named_modules():
        if isinstance(child, nn.MultiheadAttention):
            keeps = surgery.weights.get(f"{path}.out_proj.weight" if path else "out_proj.weight")
            if keeps is not None and keeps[1] is not None:
                out[path] = len(keeps[1]) // int(child.head_dim)
    return out


def _resized_labels(found: Analysis, dropped: NDArray[np.bool_]) -> set[int]:
    """Every label root of a dimension that was cut and that passes a node whose size is written in a user's forward."""
    out: set[int] = set()

    def collect(value: Any) -> None:
        if isinstance(value, tuple):
            for item in value:
                collect(item)
        else:
            for dim in value or []:
                roots = found.flow.labels.find(dim)
                if dropped[roots].any():
                    out.update(roots.tolist())

    for node in found.flow.resized:
        paths = mend.enclosing(node)
        try:
            owner = found.module.get_submodule(paths[0]) if paths else None
        except AttributeError:
            owner = None
        if not isinstance(owner, LEAVES):
            collect(found.flow.values[node])
    return out
