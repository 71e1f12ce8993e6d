"""What binds a module's labels beyond its graph: shared weights, computed weights, and
what the user wants kept.
"""

from __future__ import annotations

import re

from torch import nn
from torch.nn.utils import parametrize

from mlopt.model.tensors import holders
from mlopt.pruning.propagation import Propagation


def constrain(module: nn.Module, flow: Propagation, keep: tuple[str, ...]) -> None:
    """Unite and pin labels for what the graph of `module` does not say. `keep`:
    patterns of weights whose widths stay.
    """
    _unite_aliases(module, flow)
    _pin_computed(module, flow)
    for pattern in keep:
        for name in [name for name in flow.weights if re.search(pattern, name)]:
            _pin_width(module, flow, name)


def _pin_width(module: nn.Module, flow: Propagation, name: str) -> None:
    """Pin every dimension of a weight but the one that its layer reads from: that width
    is another layer's.
    """
    dims = flow.weights[name]
    owner = module.get_submodule(name.rpartition(".")[0])
    transposed = isinstance(owner, nn.modules.conv._ConvTransposeNd)
    into = 0 if transposed or isinstance(owner, nn.Embedding) else 1
    flow.pin(*(dim for position, dim in enumerate(dims) if len(dims) == 1 or position != into))


def _unite_aliases(module: nn.Module, flow: Propagation) -> None:
    """A weight that two names share reaches the graph under one or both: unite their
    labels so that they are cut alike.
    """
    first: dict[int, str] = {}
    for name, _, _, tensor in holders(module):
        if name not in flow.weights:
            continue
        other = first.setdefault(id(tensor), name)
        if other != name:
            for a, b in zip(flow.weights[other], flow.weights[name], strict=True):
                flow.union(a, b)


def _pin_computed(module: nn.Module, flow: Propagation) -> None:
    """Weights that a parametrization or a pre-forward hook computes from others
    (weight_norm, spectral_norm) are left whole.

    Masking such a weight's source gives 0/0 or another norm, so a cut could not be
    proved.
    """
    for path, child in module.named_modules():
        if parametrize.is_parametrized(child) or child._forward_pre_hooks:
            prefix = f"{path}." if path else ""
            for name, dims in flow.weights.items():
                local = name.removeprefix(prefix)
                if name.startswith(prefix) and (local.startswith("parametrizations.") or "." not in local):
                    flow.pin(*dims)
            flow.computed.append(path or type(module).__name__)
