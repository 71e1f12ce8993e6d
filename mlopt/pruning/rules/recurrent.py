"""Recurrent layers: a hidden unit is one row in each gate, one column of the recurrent
weight, and one channel of the output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from mlopt.pruning.nodes import argument, op_name
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import Value, rule

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@rule(*GATES)
def recurrent(flow: Propagation, node: Node) -> Value:
    """Arguments: input, state(s), weights in layer and direction order, has_biases,
    num_layers, dropout, train, bidirectional, batch_first.

    The initial state holds every layer in one tensor, so all layers keep the same
    units. Projections (`proj_size`) are left whole.
    """
    gates = GATES[op_name(node)]
    named: Any = node.args[2]
    x, weights = flow.of(node.args[0]), [flow.of(weight) for weight in named]
    states: Any = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    biased, layers, directions = (
        bool(node.args[3]),
        int(argument(node, 4, "num_layers")),
        2 if node.args[7] else 1,
    )
    each = 4 if biased else 2
    if len(weights) != layers * directions * each or len(x) != 3:
        return flow.give_up(node)
    flow.pin(*x[:-1])
    hidden = weights[1][1]
    for state in states:
        flow.union(flow.of(state)[-1], hidden)
        flow.pin(*flow.of(state)[:-1])
    entering = x[-1]
    for layer in range(layers):
        leaving = []
        for direction in range(directions):
            first = (layer * directions + direction) * each
            into, back, *biases = weights[first : first + each]
            flow.union(hidden, back[1])
            for rows in (into[0], back[0], *(bias[0] for bias in biases)):
                flow.union(np.tile(hidden, gates), rows)
            flow.union(entering, into[1])
            flow.product(node, 1, *x[:-1], into[0], into[1])
            flow.product(node, 1, *x[:-1], back[0], back[1])
            leaving.append(back[1])
        entering = np.concatenate(leaving)
    flow.producers.append((node.name, hidden))
    out = [*x[:-1], entering]
    return (out, *([*flow.of(state)[:-1], hidden] for state in states))
