"""Small ONNX networks for the gate: alike, slower, wrong, and hostile."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mlp(
    path: Path,
    hidden: int = 512,
    layers: int = 3,
    outputs: int = 10,
    seed: int = 0,
    inputs: int = 64,
    batch: int | str = "batch",
) -> Path:
    """A perceptron of about a quarter of a millisecond at batch 1; more layers make it
    slower."""
    draw = np.random.default_rng(seed)
    widths = [inputs, *[hidden] * layers, outputs]
    nodes, weights, x = [], [], "x"
    for i, (before, after) in enumerate(pairwise(widths)):
        weights.append(
            numpy_helper.from_array(
                (draw.standard_normal((before, after)) / np.sqrt(before)).astype(np.float32), f"w{i}"
            )
        )
        nodes += [
            helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"], name=f"matmul{i}"),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        x = f"r{i}"
    nodes[-1] = helper.make_node("Identity", [f"m{len(widths) - 2}"], ["y"])
    return save(path, nodes, weights, [batch, inputs], [batch, outputs])


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    dims: list[int | str],
    out: list[int | str],
) -> Path:
    x, y = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, dims),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, out),
    )
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def constant(path: Path) -> Path:
    """Gives the same answer whatever it is asked."""
    weights = [
        numpy_helper.from_array(np.zeros((64, 10), np.float32), "w"),
        numpy_helper.from_array(np.arange(10, dtype=np.float32), "b"),
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    return save(path, nodes, weights, ["batch", 64], ["batch", 10])


def not_a_number(path: Path) -> Path:
    """Gives NaN."""
    weights = [numpy_helper.from_array(np.full((64, 10), np.nan, np.float32), "w")]
    return save(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], weights, ["batch", 64], ["batch", 10])


def endless(path: Path) -> Path:
    """Loops 10^11 times when its first input is larger than 10 (the timed inputs are
    not), so that it hangs where it is told to."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Add", ["v", "v"], ["vo"])], "b",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, []), helper.make_tensor_value_info("v", 1, ["batch", 10])],
        [helper.make_tensor_value_info("co", 9, []), helper.make_tensor_value_info("vo", 1, ["batch", 10])],
    )  # fmt: skip
    weights = [
        numpy_helper.from_array(np.ones((64, 10), np.float32) / 64, "w"),
        helper.make_tensor("n", 7, [], [10**11]),
        helper.make_tensor("go", 9, [], [True]),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Loop", ["n", "go", "m"], ["y"], body=body),
    ]
    return save(path, nodes, weights, ["batch", 64], ["batch", 10])
