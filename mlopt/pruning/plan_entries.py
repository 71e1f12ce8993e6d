"""The entries of a `plan.json`, one a width or a residual block; typed here, JSON only
where they are read and written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlopt.pruning.cut import Cut
from mlopt.pruning.groups import Group
from mlopt.pruning.propagation import Propagation
from mlopt.pruning.ranges import ranges
from mlopt.records.edge import Json

BLOCK = "block"
T = TypeVar("T")


@dataclass(frozen=True)
class WidthEntry:
    """One width. What is None was left out by whoever edited the file.

    `kept`: the indices that stay, `{"weight:dimension": "0-7,9"}`: as few weight
    dimensions as hold all channels of the group. `importance`: one number a channel (or
    head). `other`: keys that somebody added, kept as they are.
    """

    name: str
    kept: dict[str, str]
    kind: str | None = None
    before: int | None = None
    after: int | None = None
    importance: list[float] | None = None
    reason: str | None = None
    other: Json = field(default_factory=dict)


@dataclass(frozen=True)
class BlockEntry:
    """One residual block. `kept`: whether it stays. `importance`: how much the output
    changes without it.
    """

    name: str
    kept: bool
    importance: float | None = None
    reason: str | None = None
    other: Json = field(default_factory=dict)


Entry = WidthEntry | BlockEntry

WIDTH_KEYS = ("name", "kind", "before", "after", "kept", "importance", "reason")
BLOCK_KEYS = ("name", "kind", "kept", "importance", "reason")


def to_json(entry: Entry) -> Json:
    """An entry as it stands in the file; what is None is left out."""
    block = isinstance(entry, BlockEntry)
    values = {**vars(entry), "kind": BLOCK} if block else vars(entry)
    named = {key: values[key] for key in (BLOCK_KEYS if block else WIDTH_KEYS) if values[key] is not None}
    return {**named, **entry.other}


def from_json(data: Json) -> Entry:
    """The inverse of `to_json`. Raises `KeyError`, `TypeError` or `ValueError` for what
    is no entry.
    """
    kind, kept = _optional(str, data, "kind"), data["kept"]
    other = {
        key: value for key, value in data.items() if key not in (BLOCK_KEYS if kind == BLOCK else WIDTH_KEYS)
    }
    if kind == BLOCK:
        return BlockEntry(
            name=str(data["name"]),
            kept=bool(kept),
            importance=_optional(float, data, "importance"),
            reason=_optional(str, data, "reason"),
            other=other,
        )
    if not isinstance(kept, dict):
        raise TypeError(
            f"`kept` of {data['name']} is a {type(kept).__name__}, not the indices of each weight"
        )
    return WidthEntry(
        name=str(data["name"]),
        kept={where: str(text) for where, text in kept.items()},
        kind=kind,
        before=_optional(int, data, "before"),
        after=_optional(int, data, "after"),
        importance=_optional(lambda scores: [float(score) for score in scores], data, "importance"),
        reason=_optional(str, data, "reason"),
        other=other,
    )


def _optional(convert: Callable[[Any], T], data: Json, key: str) -> T | None:
    value = data.get(key)
    return None if value is None else convert(value)


def rounded(score: float) -> float:
    """Four digits: what a score is worth, and what two plans can be compared by."""
    return float(f"{score:.4g}")


def entries_of(
    cut: Cut, groups: Sequence[Group], scores: Sequence[NDArray[np.float64]], reason: str
) -> Iterator[WidthEntry]:
    """One entry a group. `scores`: one number a class; `reason`: why those that go were
    chosen.
    """
    places = _places_of(cut.flow)
    for group, score in zip(groups, scores, strict=True):
        after = int(np.count_nonzero(~cut.dropped[group.classes]))
        yield WidthEntry(
            name=group.name,
            kept=_kept(cut, group, places),
            kind=group.kind,
            before=len(group.classes) * group.unit,
            after=after * group.unit,
            importance=[rounded(value) for value in score.tolist()],
            reason=reason if after < len(group.classes) else "whole",
        )


def _places_of(flow: Propagation) -> dict[int, list[tuple[str, int]]]:
    """For each label root, the weight dimensions that hold it: (weight, dimension), in
    the order of the weights.
    """
    out: dict[int, list[tuple[str, int]]] = {}
    for name, dims in flow.weights.items():
        for dim, labels in enumerate(dims):
            for root in np.unique(flow.labels.find(labels)).tolist():
                out.setdefault(root, []).append((name, dim))
    return out


def _kept(cut: Cut, group: Group, places: dict[int, list[tuple[str, int]]]) -> dict[str, str]:
    """A few weight dimensions that hold all channels of a group, and what stays of
    each.
    """
    held: dict[tuple[str, int], set[int]] = {}
    for root in group.classes.tolist():
        for place in places.get(root, ()):
            held.setdefault(place, set()).add(root)
    left = set(group.classes.tolist())
    kept: dict[str, str] = {}
    for (name, dim), roots in sorted(held.items(), key=lambda place: -len(place[1])):
        if not left & roots:
            continue
        kept[f"{name}:{dim}"] = ranges(np.nonzero(cut.stays(cut.flow.weights[name][dim]))[0].tolist())
        left -= roots
        if not left:
            break
    return kept
