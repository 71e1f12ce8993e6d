"""Scaled dot-product attention."""

from __future__ import annotations

from torch.fx import Node

from mlopt.pruning.nodes import shape
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.rule_table import Value, rule


@rule("scaled_dot_product_attention")
def attention(flow: Propagation, node: Node) -> Value:
    """`softmax(q k^T / sqrt(d)) v`: heads are united; the query's and key's own width
    sets the scale, so it is pinned.
    """
    query, key, value = (flow.of(source) for source in node.args[:3])
    extra = [s for s in node.all_input_nodes if s not in node.args[:3]]
    flow.pin(query[-1], key[-1], query[-2], key[-2], value[-2])
    for position in range(len(query) - 2):
        for other in (key[position], value[position]):
            if len(other) == len(query[position]):
                flow.union(query[position], other)
            else:  # grouped queries or broadcast heads
                flow.pin(query[position], other)
    for mask in extra:
        for labels, target in zip(reversed(flow.of(mask)), reversed([*query[:-1], key[-2]]), strict=False):
            if len(labels) == len(target):
                flow.union(labels, target)
            else:
                flow.pin(labels)
    out = [*query[:-1], value[-1]]
    flow.product(node, 1, *query, key[-2])
    flow.product(node, 1, *query[:-1], key[-2], value[-1])
    assert len(out) == len(shape(node))
    return out
