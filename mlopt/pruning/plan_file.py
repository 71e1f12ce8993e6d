"""`plan.json`: what a pruning decided, to be reviewed, compared, edited, and applied to
another checkpoint of the same architecture.

Only decisions are in it: which indices of which weights stay, with the importance they
were chosen by. What follows from them (coupled weights, attributes, the proof) is
worked out again when the plan is applied, so a plan can be wrong but its result cannot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlopt.errors import UsageError
from mlopt.pruning.plan_entries import BlockEntry, Entry, WidthEntry, from_json, to_json
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.ranges import indices

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """`statistics`: whether normalisations average over what was cut. `architecture`:
    shapes of the weights, by name.
    """

    amount: str
    importance: str
    statistics: bool
    architecture: dict[str, list[int]] = field(default_factory=dict)
    groups: list[Entry] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """One line a group and a weight, so that two plans can be compared line by
        line.
        """
        head = {
            "schema_version": SCHEMA_VERSION,
            "amount": self.amount,
            "importance": self.importance,
            "statistics": self.statistics,
        }
        lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        shapes = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in self.architecture.items()
        )
        groups = ",\n".join(f"  {json.dumps(to_json(entry))}" for entry in self.groups)
        path.write_text(
            "\n".join(
                ["{", *lines, ' "architecture": {', shapes, " },", ' "groups": [', groups, " ]", "}", ""]
            )
        )

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Raises `UsageError` for anything that is not a plan."""
        try:
            data = json.loads(path.read_text())
            if data["schema_version"] > SCHEMA_VERSION:
                raise UsageError(
                    f"{path} was written by a newer mlopt (schema {data['schema_version']})", "upgrade mlopt"
                )
            groups = [from_json(entry) for entry in data["groups"]]
            return cls(
                str(data["amount"]),
                str(data["importance"]),
                bool(data["statistics"]),
                dict(data["architecture"]),
                groups,
            )
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", "give the plan.json of a pruning") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path} is not a pruning plan: {type(error).__name__}: {error}",
                "give the plan.json of a pruning",
            ) from error

    def check(self, shapes: dict[str, list[int]]) -> None:
        """Raises `UsageError` unless these weights have the shapes that the plan was
        made for.
        """
        for name in [*self.architecture, *shapes]:
            ours, theirs = self.architecture.get(name), shapes.get(name)
            if ours != theirs:
                raise UsageError(
                    f"the plan is for another architecture: it has {name} as {ours or 'no weight'}, the model"
                    f" as {theirs or 'no weight'}",
                    "apply a plan to an unpruned checkpoint of the model it was made for",
                )

    def blocks(self) -> set[str]:
        """Paths of the residual blocks that go."""
        return {entry.name for entry in self.groups if isinstance(entry, BlockEntry) and not entry.kept}

    def dropped(self, flow: Propagation) -> NDArray[np.bool_]:
        """The labels that go. Raises `UsageError` for places that do not exist, or that
        contradict each other.
        """
        gone = np.zeros(len(flow.labels), dtype=bool)
        stays = np.zeros(len(flow.labels), dtype=bool)
        for entry in self.groups:
            for where, text in entry.kept.items() if isinstance(entry, WidthEntry) else ():
                name, _, dim = where.rpartition(":")
                if name not in flow.weights or not dim.isdigit() or int(dim) >= len(flow.weights[name]):
                    raise UsageError(
                        f"the plan names {where}, which the model does not have",
                        "the part after the colon is the dimension",
                    )
                roots = flow.labels.find(flow.weights[name][int(dim)])
                keep = np.zeros(len(roots), dtype=bool)
                keep[indices(text, len(roots), where)] = True
                gone[roots[~keep]] = True
                stays[roots[keep]] = True
        if gone[0]:
            raise UsageError(
                "the plan cuts what the network's input, output or arithmetic fixes",
                "restore the indices that were taken out by hand",
            )
        if (gone & stays).any():
            raise UsageError(
                "the plan keeps and cuts the same channel in two places",
                "indices that live together must be cut together",
            )
        return gone
