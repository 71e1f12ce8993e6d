"""A dense module, captured once: its graph, its labels, and the groups that can be
cut."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlopt.errors import UsageError
from mlopt.model.capture import batch_is_free, capture
from mlopt.model.tensors import by_name
from mlopt.pruning.checks import batch_of, check_runs, check_weights
from mlopt.pruning.constraints import constrain
from mlopt.pruning.counting import Counter
from mlopt.pruning.groups import Group, find_groups
from mlopt.pruning.layouts import propagate
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rules import has_rule


@dataclass(frozen=True)
class Analysis:
    """The labels of a captured module, and its groups. `batch`: how many samples its
    graph was captured with.
    """

    module: nn.Module
    flow: Propagation
    groups: list[Group]
    batch: int

    def counter(self, groups: list[Group] | None = None) -> Counter:
        """What widths cost, for one sample. `groups`: instead of its own."""
        once: dict[int, str] = {}  # a shared weight is one, whichever of its names the graph has
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            if name in self.flow.weights:
                once.setdefault(id(parameter), name)
        return Counter(self.flow, self.groups if groups is None else groups, set(once.values()), self.batch)


def analyse(module: nn.Module, inputs: tuple[Any, ...], batch: int | None = None) -> Analysis:
    """Capture and label. `batch`: samples in `inputs` (default: the first dimension of
    the first input).

    Raises `UsageError` for a module without weights, `PassFailed` where it cannot be
    captured.
    """
    check_weights(module)
    return label(
        module, capture(module, inputs, keep=has_rule), batch if batch is not None else batch_of(inputs)
    )


def label(
    module: nn.Module,
    program: torch.export.ExportedProgram,
    batch: int,
    cut_statistics: bool = False,
    keep: tuple[str, ...] = (),
) -> Analysis:
    """Walk a captured graph and find the groups.

    `cut_statistics`: also those that a normalisation averages over. `keep`: patterns of
    weights whose widths stay.
    """
    flow = propagate(program, cut_statistics, lambda walk: constrain(module, walk, keep))
    return Analysis(module, flow, find_groups(flow), batch)


class Dense:
    """The module that is to be pruned, with its example inputs and its captured graph.
    It is never changed.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...], keep: tuple[str, ...] = ()) -> None:
        """Raises what `checks` raise, `PassFailed` from the capture, and `UsageError`
        for a `keep` that matches no weight.
        """
        self.module, self.inputs, self.keep = module, inputs, keep
        check_weights(module)
        check_runs(module, inputs)
        self.batch = batch_of(inputs)
        self.program = capture(module, inputs, keep=has_rule)
        self.weights = by_name(module)
        for pattern in keep:
            if not any(re.search(pattern, name) for name in self.weights):
                raise UsageError(
                    f"no weight matches --keep {pattern}",
                    f"names look like {next(iter(self.weights), 'nothing')}",
                )
        self._analyses: dict[bool, Analysis] = {}

    def analysis(self, cut_statistics: bool = False) -> Analysis:
        """The groups; `cut_statistics`: also those that a normalisation averages
        over."""
        if cut_statistics not in self._analyses:
            self._analyses[cut_statistics] = label(
                self.module, self.program, self.batch, cut_statistics, self.keep
            )
        return self._analyses[cut_statistics]

    def with_free_batch(self, cut_statistics: bool) -> Analysis:
        """The same from a capture whose batch size may be any. Raises `PassFailed`
        where the model does not allow that.
        """
        program = batch_is_free(self.module, self.inputs, has_rule)
        return label(self.module, program, self.batch, cut_statistics, self.keep)

    def shapes(self) -> dict[str, list[int]]:
        """Shapes of all weights with two dimensions or more, by name: what makes an
        architecture for a plan.
        """
        return {name: list(tensor.shape) for name, tensor in self.weights.items() if tensor.ndim > 1}
