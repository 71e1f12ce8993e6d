"""The ladder itself: which cut each rung tries, in which order, and what is said of the
rungs that were refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mlopt.pruning.analysis import Analysis, Dense
from mlopt.pruning.budget import Amount
from mlopt.pruning.choice import Choice, Chooser
from mlopt.pruning.cut import Cut
from mlopt.pruning.groups import find_groups
from mlopt.pruning.ladder.attempts import Attempt, Proved
from mlopt.pruning.ladder.in_graph import in_graph
from mlopt.pruning.ladder.in_module import in_module
from mlopt.pruning.nodes import enclosing
from mlopt.pruning.options import CLOSE
from mlopt.pruning.rule_table import tensors_of
from mlopt.pruning.surgery import LEAVES

MODULE, PARTLY, GRAPH = "module", "module without resized groups", "graph"
"""Names of the rungs, in the order they are tried."""


class Candidates:
    """The cuts that the rungs may try: the whole one, and one that leaves whole what a
    user's `forward` has sizes of.
    """

    def __init__(self, chooser: Chooser, whole: Choice, budget: Amount) -> None:
        self.chooser, self.whole, self.budget = chooser, whole, budget

    @cached_property
    def partial(self) -> Choice | None:
        """None: nothing is left to cut then."""
        groups = find_groups(self.whole.analysis.flow, resized_labels(self.whole.analysis, self.whole.cut))
        return self.chooser.of_groups(self.whole.analysis, groups, self.budget)

    def partial_if(self, near: bool) -> Choice | None:
        """The partial cut, if it comes near the budget (or, `near` false, if it does
        not).
        """
        if self.partial is None:
            return None
        is_near = self.partial.miss <= max(CLOSE, self.whole.miss + CLOSE)
        return self.partial if is_near == near else None


@dataclass(frozen=True)
class Rung:
    """`choose` says which cut is tried (None: leave this rung out), `build` makes the
    network and proves it.
    """

    name: str
    choose: Callable[[Candidates], Choice | None]
    build: Callable[[Dense, Cut], Attempt]


LADDER: Sequence[Rung] = (
    Rung(MODULE, lambda candidates: candidates.whole, in_module),
    Rung(PARTLY, lambda candidates: candidates.partial_if(near=True), in_module),
    Rung(GRAPH, lambda candidates: candidates.whole, in_graph),
    Rung(PARTLY, lambda candidates: candidates.partial_if(near=False), in_module),
)
"""For a budget. Where the partial cut falls short of it, the whole cut in the graph
comes first.
"""

PLAN_LADDER: Sequence[Rung] = tuple(rung for rung in LADDER if rung.name != PARTLY)
"""For a plan: it says which indices go, so no other cut is tried."""


@dataclass(frozen=True)
class Reached:
    """The first rung that could be proved. `reason`: why those before it could not;
    empty on the first.
    """

    rung: str
    choice: Choice
    proved: Proved
    reason: str


@dataclass(frozen=True)
class Failed:
    """No rung could be proved. `problem`: what went wrong on the way; `last`: on the
    last rung.
    """

    problem: str
    last: str


def climb(ladder: Sequence[Rung], dense: Dense, candidates: Candidates) -> Reached | Failed:
    """Try the rungs in order."""
    problem = last = ""
    for rung in ladder:
        choice = rung.choose(candidates)
        if choice is None:
            continue
        attempt = rung.build(dense, choice.cut)
        if isinstance(attempt, Proved):
            return Reached(rung.name, choice, attempt, because(problem) if problem else "")
        last = attempt.reason
        problem = f"{problem}; {last}" if rung.name == GRAPH else problem or last
    return Failed(problem, last)


def because(problem: str) -> str:
    """Why a rung was refused, in a sentence for the record."""
    return f"forward has sizes written in that no attribute holds: {problem}"


def resized_labels(analysis: Analysis, cut: Cut) -> set[int]:
    """Every label root of a dimension that was cut and that passes a node whose size is
    written in a user's forward.
    """
    out: set[int] = set()
    flow = analysis.flow
    for node in flow.resized:
        paths = enclosing(node)
        try:
            owner = analysis.module.get_submodule(paths[0]) if paths else None
        except AttributeError:
            owner = None
        if isinstance(owner, LEAVES):
            continue
        for tensor in tensors_of(flow.values[node]):
            for dim in tensor:
                roots = flow.labels.find(dim)
                if cut.dropped[roots].any():
                    out.update(roots.tolist())
    return out
