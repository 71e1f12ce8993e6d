"""`plan.json`: what a pruning decided, to be reviewed, compared, edited, and applied to another checkpoint of the same architecture.

Only decisions are in it: which indices of which weights stay, with the importance they were chosen by. What follows from them (coupled
weights, attributes, the proof) is worked out again when the plan is applied, so a plan can be wrong but its result cannot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import UsageError
from mlopt.pruning.coupling import Group
from mlopt.pruning.propagation import Propagation

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """`groups`: one entry a width, `{"name", "kind", "before", "after", "kept": {"weight:dim": "0-7,9"}, "importance": [...], "reason"}`;
    an entry of kind `block` has `kept` true or false. `statistics`: whether normalisations average over what was cut.
    """

    amount: str
    importance: str
    statistics: bool
    architecture: dict[str, list[int]] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """One line a group and a weight, so that two plans can be compared line by line."""
        head = {"schema_version": SCHEMA_VERSION, "amount": self.amount, "importance": self.importance, "statistics": self.statistics}
        lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        shapes = ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in self.architecture.items())
        groups = ",\n".join(f"  {json.dumps(group)}" for group in self.groups)
        path.write_text("\n".join(["{", *lines, ' "architecture": {', shapes, " },", ' "groups": [', groups, " ]", "}", ""]))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Raises `UsageError` for anything that is not a plan."""
        try:
            data = json.loads(path.read_text())
            if data["schema_version"] > SCHEMA_VERSION:
                raise UsageError(f"{path} was written by a newer mlopt (schema {data['schema_version']})", "upgrade mlopt")
            return cls(str(data["amount"]), str(data["importance"]), bool(data["statistics"]), dict(data["architecture"]), list(data["groups"]))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", "give the plan.json of a pruning") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not a pruning plan: {type(error).__name__}: {error}", "give the plan.json of a pruning") from error

    def check(self, shapes: dict[str, list[int]]) -> None:
        """Raises `UsageError` unless these weights have the shapes that the plan was made for."""
        for name in [*self.architecture, *shapes]:
            ours, theirs = self.architecture.get(name), shapes.get(name)
            if ours != theirs:
                raise UsageError(
                    f"the plan is for another architecture: it has {name} as {ours or 'no weight'}, the model as {theirs or 'no weight'}",
                    "apply a plan to an unpruned checkpoint of the model it was made for",
                )

    def blocks(self) -> set[str]:
        """Paths of the residual blocks that go."""
        return {str(group["name"]) for group in self.groups if group.get("kind") == "block" and not group["kept"]}

    def dropped(self, flow: Propagation) -> NDArray[np.bool_]:
        """The labels that go. Raises `UsageError` for places that do not exist, or that contradict each other."""
        gone = np.zeros(len(flow.labels), dtype=bool)
        stays = np.zeros(len(flow.labels), dtype=bool)
        for group in self.groups:
            for where, text in group["kept"].items() if isinstance(group["kept"], dict) else ():
                name, _, dim = where.rpartition(":")
                if name not in flow.weights or not dim.isdigit() or int(dim) >= len(flow.weights[name]):
                    raise UsageError(f"the plan names {where}, which the model does not have", "the part after the colon is the dimension")
                roots = flow.labels.find(flow.weights[name][int(dim)])
                keep = np.zeros(len(roots), dtype=bool)
                keep[indices(text, len(roots), where)] = True
                gone[roots[~keep]] = True
                stays[roots[keep]] = True
        if gone[0]:
            raise UsageError("the plan cuts what the network's input, output or arithmetic fixes", "restore the indices that were taken out by hand")
        if (gone & stays).any():
            raise UsageError("the plan keeps and cuts the same channel in two places", "indices that live together must be cut together")
        return gone


def ranges(kept: list[int]) -> str:
    """[0, 1, 2, 5] as `0-2,5`."""
    out: list[list[int]] = []
    for index in kept:
        if out and index == out[-1][1] + 1:
            out[-1][1] = index
        else:
            out.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in out)


def indices(text: Any, size: int, where: str) -> list[int]:
    """The inverse of `ranges`. Raises `UsageError` for what is no range below `size`."""
    out: list[int] = []
    try:
        for part in str(text).split(","):
            low, _, high = part.partition("-")
            out += range(int(low), int(high or low) + 1)
    except ValueError:
        out = [-1]
    if not out or min(out) < 0 or max(out) >= size:
        raise UsageError(f"the plan keeps '{text}' of {where}, which has {size} indices", "write ranges such as 0-7,9")
    return out


Places = dict[int, list[tuple[str, int]]]
"""For each label root, the weight dimensions that hold it: (weight, dimension), in the order of the weights."""


def places_of(flow: Propagation) -> Places:
    """Where every label lives; made once for all groups."""
    out: Places = {}
    for name, dims in flow.weights.items():
        for dim, labels in enumerate(dims):
            for root in np.unique(flow.labels.find(labels)).tolist():
                out.setdefault(root, []).append((name, dim))
    return out


def describe_group(
    group: Group, flow: Propagation, places: Places, dropped: NDArray[np.bool_], scores: NDArray[np.float64], reason: str
) -> dict[str, Any]:
    """A group's entry: a few weight dimensions that hold all of its channels, and what stays of each."""
    held: dict[tuple[str, int], set[int]] = {}
    for root in group.classes.tolist():
        for place in places.get(root, ()):
            held.setdefault(place, set()).add(root)
    left = set(group.classes.tolist())
    kept: dict[str, str] = {}
    for (name, dim), roots in sorted(held.items(), key=lambda place: -len(place[1])):
        if not left & roots:
            continue
        kept[f"{name}:{dim}"] = ranges(np.nonzero(~dropped[flow.labels.find(flow.weights[name][dim])])[0].tolist())
        left -= roots
        if not left:
            break
    after = int(np.count_nonzero(~dropped[group.classes]))
    return {
        "name": group.name,
        "kind": "heads" if group.unit > 1 else "channels",
        "before": len(group.classes) * group.unit,
        "after": after * group.unit,
        "kept": kept,
        "importance": [float(f"{score:.4g}") for score in scores.tolist()],
        "reason": reason if after < len(group.classes) else "whole",
    }
