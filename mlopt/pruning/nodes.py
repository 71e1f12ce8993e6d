"""Reading a node of the captured graph: its operator, its arguments, its shape, the
modules that it belongs to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node


def op_name(node: Node) -> str:
    """`linear` for `aten.linear.default`; empty for what is not an operator of
    torch."""
    return operator_name(node.target) if isinstance(node.target, torch._ops.OpOverload) else ""


def operator_name(target: torch._ops.OpOverload) -> str:
    """The name of an operator without its namespace and overload."""
    return str(target._schema.name.split("::")[1])


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a call, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def size_of(size: Any) -> int:
    """A size as a number: of a symbolic one (a dynamic batch), its value for the
    example inputs.
    """
    return int(size) if isinstance(size, int) else int(size.node.hint)


def shape(node: Node) -> tuple[int, ...]:
    """The shape of a node's tensor for the example inputs."""
    return sizes_of(node.meta["val"])


def sizes_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape of a traced tensor for the example inputs."""
    return tuple(size_of(size) for size in tensor.shape)


def user_outputs(program: torch.export.ExportedProgram, results: Any) -> Any:
    """What the module returns, of all outputs of its graph: before it come weights and
    buffers that forward writes into.
    """
    return results[len(results) - len(program.graph_signature.user_outputs) :]


def module_path(key: str) -> str:
    """The real path of an `nn_module_stack` entry: export marks repeated calls as
    `block@1`.
    """
    return key.split("@")[0]


def enclosing(node: Node) -> list[str]:
    """Paths of the modules that enclose a node, innermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    return [module_path(entry[0]) for entry in reversed(stack.values())]


def owner(node: Node) -> str:
    """The class whose forward made this node; empty when that is not known."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][1]) if stack else ""
