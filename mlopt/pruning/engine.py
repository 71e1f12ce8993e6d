"""Structured pruning of one module, from capture to proof."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from mlopt.errors import PassFailed, UsageError, first_line
from mlopt.model.capture import batch_is_free, capturable, capture, user_line
from mlopt.model.outputs import first_tensors
from mlopt.model.surgery import Surgery, apply, cut_tensor
from mlopt.model.tensors import holders, in_place_of, relink
from mlopt.pruning import depth, mend
from mlopt.pruning.budget import Amount, Widths, choose, solve
from mlopt.pruning.coupling import Counter, Counts, Group, find_groups, has_rule, propagate
from mlopt.pruning.graph import Cut, Reference, Unwritten, cut_statistics, rewrite
from mlopt.pruning.importance import KINDS, mean_gradients, score_classes
from mlopt.pruning.plan_file import Plan, describe_group, places_of
from mlopt.pruning.proof import TOLERANCE, Proof, Wanted, prove, trains
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.surgery import LEAVES, leaf_changes, plan_weights
from mlopt.system.processes import check_stop

ROUND_TO = 8
CLOSE = 0.03
"""A budget counts as hit within 3 points."""

MODULE, PARTLY, GRAPH = "module", "module without resized groups", "graph"
"""The rungs of the ladder, in the order they are tried."""


@dataclass(frozen=True)
class Options:
    """How channels are ranked and how narrow a group may become; see `recipe.Prune`.

    `round_to` None: multiples of 8, and finer only where the budget would be missed by more than 3 points.
    """

    importance: str = "l2"
    spread: str = "uniform"
    round_to: int | None = None
    floor: float = 0.1
    keep: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.importance not in KINDS:
            raise UsageError(f"'{self.importance}' is not an importance", f"choose from {', '.join(KINDS)}")
        if self.spread not in ("uniform", "global"):
            raise UsageError(f"'{self.spread}' is not a spread", "choose uniform or global")


@dataclass(frozen=True)
class PruneReport:
    """What was asked, what was reached, and how it was checked. Shares are of the dense module.

    `statistics`: how many normalisations average over a dimension that was cut (0 where that could be avoided). `rounding`: the budget
    that would be reached without rounding widths, and the share of the importance kept with it and without.
    """

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
    statistics: int = 0
    rounding: dict[str, float] = field(default_factory=dict)
    note: str = ""
    layers: dict[str, tuple[float, float]] = field(default_factory=dict)
    """MACs of each layer for one sample, before and after, by module path."""


@dataclass(frozen=True)
class Pruned:
    """A pruned copy, the decisions, the report, and the cut as data. On the graph rung `module` is a `torch.fx.GraphModule`."""

    module: nn.Module
    plan: Plan
    report: PruneReport
    surgery: Surgery


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

    def counter(self, groups: list[Group] | None = None) -> Counter:
        once: dict[int, str] = {}  # a shared weight is one, whichever of its names the graph has
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            if name in self.flow.weights:
                once.setdefault(id(parameter), name)
        return Counter(self.flow, self.groups if groups is None else groups, set(once.values()), self.batch)


def analyse(module: nn.Module, inputs: tuple[Any, ...], batch: int | None = None) -> Analysis:
    """Capture and label. `batch`: samples in `inputs` (default: the first dimension of the first input)."""
    check_weights(module)
    return label(module, capture(module, inputs, keep=has_rule), batch if batch is not None else batch_of(inputs))


def check_weights(module: nn.Module) -> None:
    """Raises `UsageError` for a module without weights or on the meta device."""
    tensors = [tensor for _, _, _, tensor in holders(module)]
    if any(tensor.is_meta for tensor in tensors):
        raise UsageError(
            f"{type(module).__name__} is on the meta device: it has shapes but no weights", "load the weights first (module.to_empty is not enough)"
        )
    if any(isinstance(tensor, nn.UninitializedParameter) for tensor in tensors):
        raise UsageError(f"{type(module).__name__} has lazy layers without weights", "run it once on an example input first")


def check_runs(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raises `UsageError` when the module does not run on these inputs, or gives nothing finite."""
    try:
        with capturable(module), torch.no_grad():
            outputs = first_tensors(module(*inputs))
    except Exception as error:  # whatever a forward raises
        place = user_line(error)
        raise UsageError(
            f"{type(module).__name__} does not run on these inputs{f' ({place})' if place else ''}: {type(error).__name__}: {first_line(error)}",
            "give inputs as forward takes them: a tensor, positional tensors, or tensors by name",
        ) from error
    if any(t.numel() for t in outputs) and not any(bool(torch.isfinite(t).any()) for t in outputs):
        raise UsageError(f"{type(module).__name__} gives only NaN or Inf on these inputs", "look at its weights, or give other inputs")


def batch_of(inputs: tuple[Any, ...]) -> int:
    """Samples in the first tensor of `inputs`."""
    first = next((x for x in inputs if isinstance(x, torch.Tensor) and x.ndim), None)
    return max(1, int(first.shape[0])) if first is not None else 1


def label(module: nn.Module, program: torch.export.ExportedProgram, batch: int, soft: bool = False, keep: tuple[str, ...] = ()) -> Analysis:
    """Walk a captured graph and find the groups. `keep`: patterns of weights whose widths stay."""
    flow = propagate(program, soft, lambda walk: _module_facts(module, walk, keep))
    return Analysis(module, flow, find_groups(flow), batch)


def _module_facts(module: nn.Module, flow: Propagation, keep: tuple[str, ...]) -> None:
    """What the graph does not say: aliases, computed weights, and what the user wants kept."""
    _unite_aliases(module, flow)
    _pin_computed(module, flow)
    for pattern in keep:
        for name in [name for name in flow.weights if re.search(pattern, name)]:
            dims = flow.weights[name]
            owner = module.get_submodule(name.rpartition(".")[0])
            into = 0 if isinstance(owner, nn.modules.conv._ConvTransposeNd) else 1 if not isinstance(owner, nn.Embedding) else 0
            flow.pin(*(dim for position, dim in enumerate(dims) if len(dims) == 1 or position != into))


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
            flow.computed.append(path or type(module).__name__)


@dataclass(frozen=True)
class Choice:
    """Widths for one set of groups, and the labels that go."""

    found: Analysis
    groups: list[Group]
    widths: Widths
    dropped: NDArray[np.bool_]
    before: Counts
    after: Counts
    reached: float
    rounding: dict[str, float]
    scores: list[NDArray[np.float64]]


class Pruner:
    """One module captured once, pruned to any budget."""

    def __init__(
        self, module: nn.Module, inputs: tuple[Any, ...], options: Options | None = None, losses: Iterable[Callable[[], torch.Tensor]] = ()
    ) -> None:
        """`inputs`: positional example inputs, on which the proof runs. `losses`: closures for `importance="taylor"`.

        Raises `PassFailed` when the module cannot be captured, `UsageError` for one without weights or a `keep` that matches nothing.
        """
        self.module, self.inputs, self.options = module, inputs, options or Options()
        check_weights(module)
        check_runs(module, inputs)
        self.batch = batch_of(inputs)
        self.program = capture(module, inputs, keep=has_rule)
        self.weights = {name: tensor for name, _, _, tensor in holders(module)}
        for pattern in self.options.keep:
            if not any(re.search(pattern, name) for name in self.weights):
                raise UsageError(f"no weight matches --keep {pattern}", f"names look like {next(iter(self.weights), 'nothing')}")
        self._gradients = mean_gradients(module, losses) if self.options.importance == "taylor" else None
        self._found: dict[bool, Analysis] = {}

    def found(self, soft: bool = False) -> Analysis:
        """The groups; `soft`: also those that a normalisation averages over."""
        if soft not in self._found:
            self._found[soft] = label(self.module, self.program, self.batch, soft, self.options.keep)
        return self._found[soft]

    def prune(self, amount: str | Amount) -> Pruned:
        """Cut a copy to the budget and prove it.

        Raises `UsageError` for a bad amount, `Declined` when there is nothing to cut, `PassFailed` when no rung of the ladder can be proved.
        """
        budget = Amount.parse(amount) if isinstance(amount, str) else amount
        if budget.metric == "layers":
            return self._leave_out(int(budget.remove))
        if budget.metric == "latency":
            raise UsageError("a latency has to be measured", "prune_to_latency does; here, name what to count: macs:0.5")
        full = self._choose_best(budget)
        problem, reason = "", ""
        partly: Choice | None = None
        for rung in (MODULE, PARTLY, GRAPH):
            choice: Choice | None = full
            if rung == PARTLY:
                pinned = _resized_labels(full.found, full.dropped)
                partly = choice = self._choose(full.found, find_groups(full.found.flow, pinned), budget)
                if choice is None or abs(choice.reached - choice.widths.asked) > max(CLOSE, abs(full.reached - full.widths.asked) + CLOSE):
                    continue  # too little is left: the whole cut in the graph comes first
            outcome = self.as_graph(full.found, full.dropped) if rung == GRAPH else self.as_module(full.found, (choice or full).dropped)
            if isinstance(outcome, tuple):
                return self._report(choice or full, budget, rung, reason, *outcome)
            problem = f"{problem}; {outcome}" if rung == GRAPH else problem or outcome
            reason = f"forward has sizes written in that no attribute holds: {problem}"
        if partly is not None:
            outcome = self.as_module(partly.found, partly.dropped)
            if isinstance(outcome, tuple):
                return self._report(partly, budget, PARTLY, reason, *outcome)
        raise PassFailed(f"the pruned module could not be proved equal to the masked one: {problem}", "please report the model's architecture")

    def _choose_best(self, budget: Amount) -> Choice:
        """Without touching what normalisations average over, if the budget can be met so."""
        best = self._choose(self.found(), self.found().groups, budget)
        if best is None or best.reached > best.widths.asked + CLOSE:
            soft = self.found(soft=True)
            other = self._choose(soft, soft.groups, budget)
            if other is not None and (best is None or other.reached < best.reached - CLOSE):
                best = other
        if best is None:
            raise Declined(_why_nothing(self.found(soft=True), self.options.round_to or ROUND_TO))
        return best

    def _choose(self, found: Analysis, groups: list[Group], budget: Amount) -> Choice | None:
        """None: there is nothing to cut."""
        if self.options.round_to is not None:
            return self._choose_at(found, groups, budget, self.options.round_to)
        best: Choice | None = None
        for round_to in (ROUND_TO, 4, 2, 1):
            choice = self._choose_at(found, groups, budget, round_to)
            if choice is not None and (best is None or _miss(choice) < _miss(best) - CLOSE / 3):
                best = choice
            if best is not None and _miss(best) <= CLOSE:
                break
        return best

    def _choose_at(self, found: Analysis, groups: list[Group], budget: Amount, round_to: int) -> Choice | None:
        if not groups:
            return None
        options = self.options
        scores = score_classes(found.flow, groups, self.weights, options.importance, self._gradients, options.seed)
        counter = found.counter(groups)
        widths = solve(counter, groups, scores, budget, round_to, options.floor, options.spread)
        dropped = choose(groups, scores, widths, found.flow)
        if not dropped.any():
            return None
        kept = np.array([np.count_nonzero(~dropped[group.classes]) for group in groups], dtype=float)
        before, after = counter.whole(), counter.of_mask(dropped, kept)
        reached = getattr(after, budget.metric) / getattr(before, budget.metric)
        rounding = {
            "round_to": round_to,
            "reached": reached,
            "reached_unrounded": widths.unrounded,
            "importance_kept": _importance_kept(scores, kept),
            "importance_kept_unrounded": _importance_kept(scores, widths.ideal),
        }
        return Choice(found, groups, replace(widths, kept=kept.astype(np.int64)), dropped, before, after, reached, rounding, scores)

    def _report(self, choice: Choice, budget: Amount, rung: str, reason: str, module: nn.Module, surgery: Surgery, proof: Proof) -> Pruned:
        own_tensors(module, self.weights.values())
        groups = [
            {
                "name": g.name,
                "kind": "heads" if g.unit > 1 else "channels",
                "before": len(g.classes) * g.unit,
                "after": int(k) * g.unit,
                "unit": g.unit,
            }
            for g, k in zip(choice.groups, choice.widths.kept.tolist(), strict=True)
        ]
        report = PruneReport(
            amount=str(budget),
            importance=self.options.importance,
            asked=choice.widths.asked,
            reached=choice.reached,
            rung=rung,
            rung_reason=reason,
            before=choice.before,
            after=choice.after,
            proof=proof,
            groups=groups,
            unknown_operators=choice.found.flow.unknown,
            statistics=len(cut_statistics(Cut(choice.found.flow, choice.dropped))),
            rounding=choice.rounding,
            note=_missed(choice.widths, choice.reached, budget),
            layers=_macs_by_module(choice.found, choice.dropped),
        )
        why = f"lowest {self.options.importance} for {budget}"
        flow = choice.found.flow
        places = places_of(flow)
        described = [describe_group(g, flow, places, choice.dropped, score, why) for g, score in zip(choice.groups, choice.scores, strict=True)]
        plan = Plan(str(budget), self.options.importance, flow.soft, self._shapes(), described)
        return Pruned(module, plan, report, surgery)

    def _shapes(self) -> dict[str, list[int]]:
        return {name: list(tensor.shape) for name, tensor in self.weights.items() if tensor.ndim > 1}

    def apply_plan(self, plan: Plan) -> Pruned:
        """Cut as a plan says, and prove it. Raises `UsageError` when the plan does not fit, `Declined` when it cuts nothing."""
        plan.check(self._shapes())
        if plan.blocks():
            return self._leave_out(plan.blocks())
        found = self.found(plan.statistics)
        dropped = plan.dropped(found.flow)
        if not dropped.any():
            raise Declined("the plan cuts nothing")
        counter = found.counter()
        kept = np.array([np.count_nonzero(~dropped[group.classes]) for group in found.groups])
        before, after = counter.whole(), counter.of_mask(dropped, kept.astype(float))
        reached = after.macs / before.macs
        widths = Widths(kept, reached, reached, reached, reached, kept.astype(float))
        scores = score_classes(found.flow, found.groups, self.weights, "l2")
        choice = Choice(found, found.groups, widths, dropped, before, after, reached, {}, scores)
        reason = ""
        for rung, attempt in ((MODULE, self.as_module), (GRAPH, self.as_graph)):
            outcome = attempt(found, dropped)
            if isinstance(outcome, tuple):
                made = self._report(choice, Amount("macs", 1 - reached), rung, reason, *outcome)
                return replace(made, plan=plan, report=replace(made.report, amount=plan.amount, importance=plan.importance))
            reason = f"forward has sizes written in that no attribute holds: {outcome}"
        raise PassFailed(f"the plan gives a network that cannot be proved: {reason}", "prune this checkpoint by a budget instead")

    def _leave_out(self, which: int | set[str]) -> Pruned:
        """Drop the residual blocks that matter least (how many), or those at these paths."""
        count = which if isinstance(which, int) else len(which)
        blocks = depth.weigh(self.module, self.inputs, depth.candidates(self.module, self.inputs))
        free = [block for block in blocks if not any(re.search(pattern, block.path) for pattern in self.options.keep)]
        if len(free) <= count:
            what = f"{len(free)} residual blocks can be left out" if free else "no repeated residual block gives back what it is given"
            raise Declined(f"{what}, and one must stay" if free else what)
        if isinstance(which, set) and not which <= {block.path for block in free}:
            raise UsageError(f"the plan leaves out {', '.join(sorted(which))}: not all of them are residual blocks here")
        gone = [b for b in free if b.path in which] if isinstance(which, set) else sorted(free, key=lambda block: block.importance)[:count]
        surgery = depth.leave_out(gone)
        pruned = apply(share_copy(self.module), surgery)
        error, moved = depth.prove_depth(self.module, pruned, gone, self.inputs)
        if error > TOLERANCE:
            raise PassFailed(f"the shallower module differs by {error:.2e} from the dense one with {count} blocks bypassed")
        proof = Proof(True, error, TOLERANCE, moved, (), "dense module with the blocks bypassed", trained=trains(pruned, self.inputs))
        own_tensors(pruned, self.weights.values())
        before, after = (
            label(m, p, self.batch).counter().whole() for m, p in ((self.module, self.program), (pruned, capture(pruned, self.inputs, has_rule)))
        )
        paths = {block.path for block in gone}
        report = PruneReport(
            amount=f"layers:{count}",
            importance="output change",
            asked=1 - count / len(blocks),
            reached=1 - count / len(blocks),
            rung=MODULE,
            rung_reason="",
            before=before,
            after=after,
            proof=proof,
            groups=[
                {"name": b.path, "kind": "block", "before": 1, "after": int(b.path not in paths), "unit": 1, "importance": b.importance}
                for b in blocks
            ],
            unknown_operators={},
        )
        groups = [
            {"name": b.path, "kind": "block", "kept": b.path not in paths, "importance": float(f"{b.importance:.4g}"),
             "reason": "the output changes least without it" if b.path in paths else "whole"} for b in blocks
        ]  # fmt: skip
        plan = Plan(report.amount, report.importance, False, self._shapes(), groups)
        return Pruned(pruned, plan, report, surgery)

    @staticmethod
    def _reference(found: Analysis, dropped: NDArray[np.bool_]) -> Callable[..., list[torch.Tensor]] | None:
        return Reference(found.flow, dropped).outputs if cut_statistics(Cut(found.flow, dropped)) else None

    def as_module(self, found: Analysis, dropped: NDArray[np.bool_]) -> tuple[nn.Module, Surgery, Proof] | str:
        """Apply, mend and prove; a string says why nothing could be proved."""
        flow = found.flow
        base = plan_weights(flow, dropped)
        leaf_changes(self.module, base, _kept_heads(self.module, base), flow.soft)
        problems: list[str] = []
        reference = self._reference(found, dropped)
        wanted: Wanted = {}

        def attempt(chosen: tuple[mend.Candidate, ...]) -> tuple[nn.Module, Surgery, Proof] | None:
            surgery = mend.with_candidates(base, chosen)
            pruned = apply(share_copy(self.module), surgery)
            try:
                proof = prove(self.module, pruned, surgery, self.inputs, reference, wanted)
                if proof.holds:
                    return pruned, surgery, proof
                problems.append(f"outputs differ by {proof.error:.2e} of the largest (tolerance {proof.tolerance:.0e})")
            except Exception as error:  # whatever forward raises when a size does not fit
                problems.append(f"{type(error).__name__}: {first_line(error)}")
            return None

        for chosen in mend.proposals(mend.find_candidates(self.module, flow, dropped)):
            check_stop()
            done = attempt(chosen)
            if done is None:
                continue
            # Only what is needed is changed: an attribute with the right number by chance may mean something else.
            for spare in chosen if len(chosen) > 1 else ():
                fewer = tuple(candidate for candidate in chosen if candidate is not spare)
                without = attempt(fewer)
                if without is not None:
                    done, chosen = without, fewer
            pruned, surgery, proof = done
            try:
                return pruned, surgery, replace(proof, trained=trains(pruned, self.inputs))
            except Exception as error:  # whatever a backward raises
                problems.insert(0, f"{type(error).__name__}: {first_line(error)}")
        return problems[0] if problems else "no proposal ran"

    def as_graph(self, found: Analysis, dropped: NDArray[np.bool_]) -> tuple[nn.Module, Surgery, Proof] | str:
        """Rewrite the captured graph: with a free batch size if the model can be captured so, else with the one at hand."""
        plan = plan_weights(found.flow, dropped)
        reference = self._reference(found, dropped)
        problem = ""
        for free in (True, False):
            try:
                flow, gone = (found.flow, dropped) if not free else self._free_batch(found.flow.soft, plan)
                by_id = {id(self.weights[name]): keeps for name, keeps in plan.weights.items()}
                made = {id(t): in_place_of(t, cut_tensor(t, by_id[id(t)])) if id(t) in by_id else t for t in self.weights.values()}
                tensors = {name: made[id(tensor)] for name, tensor in self.weights.items()}
                module = rewrite(flow, gone, tensors, self.module)
                module.train(self.module.training)
                proof = prove(self.module, module, plan, self.inputs, reference)
                if proof.holds:
                    return module, plan, replace(proof, trained=trains(module, self.inputs))
                problem = f"the rewritten graph differs by {proof.error:.2e} of the largest output"
            except (Unwritten, PassFailed, RuntimeError, ValueError, TypeError, KeyError, IndexError, AssertionError) as error:
                problem = problem or f"{type(error).__name__}: {first_line(error)}"
        return f"the graph could not be rewritten either: {problem}"

    def _free_batch(self, soft: bool, plan: Surgery) -> tuple[Propagation, NDArray[np.bool_]]:
        """The same cut on a capture whose batch size is free. Raises `Unwritten` where its labels do not fit."""
        program = batch_is_free(self.module, self.inputs, has_rule)
        flow = label(self.module, program, self.batch, soft, self.options.keep).flow
        dropped = np.zeros(len(flow.labels), dtype=bool)
        for name, keeps in plan.weights.items():
            for labels, keep in zip(flow.weights[name], keeps, strict=True):
                if keep is not None:
                    dropped[np.delete(flow.labels.find(labels), keep)] = True
        if plan_weights(flow, dropped).weights != plan.weights:
            raise Unwritten("the capture with a free batch size couples channels otherwise")
        return flow, dropped


def prune_module(
    module: nn.Module,
    inputs: tuple[Any, ...],
    amount: str = "macs:0.5",
    options: Options | None = None,
    losses: Iterable[Callable[[], torch.Tensor]] = (),
) -> Pruned:
    """Cut a copy of `module` to the budget and prove it: `Pruner` for one budget. Raises what it raises."""
    budget = Amount.parse(amount)
    return Pruner(module, inputs, options, losses).prune(budget)


def _miss(choice: Choice) -> float:
    return abs(choice.reached - choice.widths.asked)


def _macs_by_module(found: Analysis, dropped: NDArray[np.bool_]) -> dict[str, tuple[float, float]]:
    """MACs of every module that does any, before and after the cut, for one sample."""
    cut = Cut(found.flow, dropped)
    path_of = {node.name: (mend.enclosing(node) or [""])[0] for node in found.flow.values}
    out: dict[str, tuple[float, float]] = {}
    for term in found.flow.macs:
        before, after = out.get(path_of[term.node], (0.0, 0.0))
        whole = term.constant * math.prod(len(dim) for dim in term.dims) / found.batch
        left = term.constant * math.prod(cut.kept(dim) for dim in term.dims) / found.batch
        out[path_of[term.node]] = (before + whole, after + left)
    return out


def _importance_kept(scores: list[NDArray[np.float64]], kept: NDArray[np.float64]) -> float:
    """Share of all scores that the best `kept[i]` of each group hold."""
    total = sum(float(score.sum()) for score in scores)
    best = sum(float(np.sort(score)[::-1][: round(k)].sum()) for score, k in zip(scores, kept.tolist(), strict=True))
    return best / max(total, 1e-30)


def _why_nothing(found: Analysis, round_to: int) -> str:
    flow = found.flow
    if not flow.producers:
        return "the model has no convolution, linear layer or embedding"
    if found.groups:
        return f"every width is already at its floor or below two multiples of {round_to}; lower round_to"
    if flow.computed:
        baked = "torch.nn.utils.parametrize.remove_parametrizations makes them plain weights"
        return f"every width touches weights that are computed from others or from a hook ({', '.join(flow.computed)}); {baked}"
    if flow.unknown:
        return f"every width touches the input, the output or an operator without a rule ({', '.join(sorted(flow.unknown))})"
    return "every width is fixed by the network's input, its output, or by what --keep names"


def _missed(widths: Widths, reached: float, budget: Amount) -> str:
    if abs(reached - widths.asked) <= CLOSE:
        return ""
    limits = f"the nearest that the couplings, the floor and the rounding of widths allow (the least is {widths.floor:.3f})"
    return f"asked for {widths.asked:.3f} of the {budget.metric}, reached {reached:.3f}: {limits}"


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
                copies[id(tensor)] = in_place_of(tensor, tensor.detach().clone())
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
