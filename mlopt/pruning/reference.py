"""What a pruned network must compute where masking its channels is not enough: the
dense graph, averaging over what stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from mlopt.pruning.call_arguments import renewed_arguments
from mlopt.pruning.cut import Cut, changed_statistics
from mlopt.pruning.nodes import user_outputs
from mlopt.pruning.proof import Run
from mlopt.pruning.rule_table import TensorLabels, tensors_of


class Reference(Interpreter):
    """The dense graph on masked weights, its statistics taken over what stays: what a
    pruned network must compute.

    An operator that averages over a dimension that is cut (weight standardisation, a
    LayerNorm over its width, ...) sees the kept indices only, and its result is put
    back among zeros; every other operator runs as it stands in the graph.
    """

    def __init__(self, cut: Cut) -> None:
        super().__init__(cut.flow.program.graph_module)
        self.cut = cut
        self._narrow = changed_statistics(cut)

    def outputs(self, weights: Mapping[str, torch.Tensor], inputs: tuple[Any, ...]) -> list[torch.Tensor]:
        """The user outputs for `weights` (by qualified name, constants excepted) and
        the module's positional inputs.
        """
        program = self.cut.flow.program
        values = []
        given = iter(pytree.tree_leaves(inputs))
        for spec in program.graph_signature.input_specs:
            if spec.target in weights:
                values.append(weights[spec.target])
            elif spec.target is not None:
                held = program.state_dict.get(spec.target)
                values.append(program.constants[spec.target] if held is None else held)
            else:
                values.append(next(given))
        return list(user_outputs(program, self.run(*values)))

    def run_node(self, n: Node) -> Any:
        if n not in self._narrow:
            return super().run_node(n)
        cut, flow = self.cut, self.cut.flow
        args, kwargs = renewed_arguments(cut, n, lambda size, old, new: size)

        def narrowed(source: Node) -> Any:
            value = self.env[source]
            labels = flow.values.get(source)
            for dim, array in enumerate(labels if isinstance(labels, list) else []):
                stays = cut.stays(array)
                if not stays.all() and len(stays) == value.shape[dim]:
                    value = value.index_select(dim, torch.from_numpy(np.nonzero(stays)[0]))
            return value

        args = torch.fx.node.map_arg(args, narrowed)
        kwargs = torch.fx.node.map_arg(kwargs, narrowed)
        result = n.target(*args, **kwargs)  # type: ignore[operator]
        tensors = tensors_of(flow.values[n])
        if isinstance(result, (tuple, list)):
            return tuple(self._spread(item, dims) for item, dims in zip(result, tensors, strict=True))
        return self._spread(result, next(tensors))

    def _spread(self, result: torch.Tensor, labels: TensorLabels) -> torch.Tensor:
        for dim, array in enumerate(labels):
            stays = self.cut.stays(array)
            if not stays.all():
                sizes = list(result.shape)
                sizes[dim] = len(array)
                result = result.new_zeros(sizes).index_copy(
                    dim, torch.from_numpy(np.nonzero(stays)[0]), result
                )
        return result


def reference_of(cut: Cut) -> Run | None:
    """What the proof of a cut compares with; None: the masked module itself, for
    nothing averages over what was cut.
    """
    return Reference(cut).outputs if changed_statistics(cut) else None
