"""Sizes that are written in a user's forward: which attributes hold them, and what they
become.

`x.view(b, n, self.num_heads, self.head_dim)` after a cut of the heads needs `num_heads`
changed. The graph knows which node changed its size from what to what, and which module
wrote it; an attribute of that module (or of one that encloses it) with the old value is
a candidate. Candidates are tried, smallest set first, and the first one with which the
proof holds is used.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from mlopt.model.surgery import Surgery
from mlopt.pruning.cut import Cut
from mlopt.pruning.nodes import enclosing
from mlopt.pruning.rule_table import Value, tensors_of
from mlopt.pruning.surgery import LEAVES

MAX_TRIALS = 24
MAX_LEVELS = 3
LIKELY = re.compile(r"head|group|dim|width|channel|hidden|feature|size|embed|chunk", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """One attribute of one class, with the paths where it would be changed."""

    class_name: str
    attribute: str
    changes: tuple[tuple[str, Any, Any], ...]
    """(module path, old value, new value)"""


def changed_sizes(value: Value, cut: Cut) -> set[tuple[int, int]]:
    """(old, new) for every dimension that shrank."""
    sizes = {(len(dim), cut.kept(dim)) for tensor in tensors_of(value) for dim in tensor}
    return {(old, new) for old, new in sizes if old != new}


def find_candidates(module: nn.Module, cut: Cut) -> list[Candidate]:
    """Attributes that may hold a changed size, the likeliest names first."""
    found: dict[tuple[str, str, bool], dict[str, tuple[Any, Any]]] = {}
    for node in cut.flow.resized:
        of_output = changed_sizes(cut.flow.values[node], cut)
        of_inputs: set[tuple[int, int]] = set()
        for source in node.all_input_nodes:  # `split(self.width // 2)` is written in terms of the whole
            of_inputs |= changed_sizes(cut.flow.values.get(source), cut)
        pairs = of_output | of_inputs
        for path in enclosing(node)[:MAX_LEVELS] if pairs else []:
            try:
                owner = module.get_submodule(path)
            except AttributeError:
                continue
            if isinstance(owner, LEAVES):
                continue
            for name, value in vars(owner).items():
                if name.startswith("_") or name == "training":
                    continue
                # One old size may have two new ones, of what goes in and of what comes
                # out: each is a candidate.
                for own in (of_output, of_inputs):
                    new = renewed(value, {**dict(sorted(pairs)), **dict(sorted(own))})
                    if new is not None:
                        key = (type(owner).__qualname__, name, own is of_inputs)
                        found.setdefault(key, {})[path] = (value, new)
    candidates: dict[Candidate, None] = {}
    for (class_name, name, _), where in found.items():
        changes = tuple((path, _frozen(old), _frozen(new)) for path, (old, new) in where.items())
        candidates[Candidate(class_name, name, changes)] = None
    return sorted(candidates, key=lambda c: LIKELY.search(c.attribute) is None)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def renewed(value: Any, sizes: dict[int, int]) -> Any:
    """The value with old sizes replaced, or None where there is none in it."""
    if type(value) is int:
        return sizes.get(value)
    if (
        isinstance(value, (tuple, list))
        and value
        and all(type(item) is int for item in value)
        and any(item in sizes for item in value)
    ):
        return [sizes.get(item, item) for item in value]
    return None


def proposals(candidates: list[Candidate]) -> Iterator[tuple[Candidate, ...]]:
    """Sets of candidates to try: none, all likely ones, all, then every single one,
    pair, ...
    """

    def once(chosen: list[Candidate]) -> tuple[Candidate, ...]:
        return tuple({(c.class_name, c.attribute): c for c in chosen}.values())

    likely = [c for c in candidates if LIKELY.search(c.attribute)]
    seen: set[frozenset[Candidate]] = set()
    whole = [(), once(likely), once(likely[::-1]), once(candidates), once(candidates[::-1])]
    sets = itertools.chain(
        whole, *(itertools.combinations(candidates, size) for size in range(1, len(candidates)))
    )
    for chosen in sets:
        key = frozenset(chosen)
        if key not in seen and len(once(list(chosen))) == len(chosen):
            seen.add(key)
            yield chosen
        if len(seen) >= MAX_TRIALS:
            return


def with_candidates(surgery: Surgery, chosen: tuple[Candidate, ...]) -> Surgery:
    """A copy of the surgery that also changes these attributes."""
    attributes = {path: dict(changes) for path, changes in surgery.attributes.items()}
    for candidate in chosen:
        for path, old, new in candidate.changes:
            attributes.setdefault(path, {})[candidate.attribute] = [
                list(old) if isinstance(old, tuple) else old,
                list(new) if isinstance(new, tuple) else new,
            ]
    return Surgery(surgery.weights, attributes, surgery.modules)
