"""Leaving out whole residual blocks, and the proof that nothing else changed."""

from __future__ import annotations

import re

from mlopt.errors import PassFailed, UsageError
from mlopt.model.capture import capture
from mlopt.model.surgery import apply
from mlopt.pruning.analysis import Dense, label
from mlopt.pruning.backward import trains
from mlopt.pruning.blocks import Block, candidates, prove_depth, skip, weigh
from mlopt.pruning.copies import own_tensors, share_copy
from mlopt.pruning.ladder.climb import MODULE
from mlopt.pruning.options import Declined
from mlopt.pruning.plan_entries import BlockEntry, Entry, rounded
from mlopt.pruning.plan_file import Plan
from mlopt.pruning.proof import TOLERANCE, Proof
from mlopt.pruning.report import BlockReport, Pruned, PruneReport
from mlopt.pruning.rules import has_rule

IMPORTANCE = "output change"


def leave_out(dense: Dense, which: int | set[str]) -> Pruned:
    """Drop the residual blocks that matter least (`which`: how many), or those at these
    paths.

    Raises `Declined` when there are not enough, `UsageError` for a path that is no such
    block, `PassFailed` when the result cannot be proved.
    """
    blocks = weigh(dense.module, dense.inputs, candidates(dense.module, dense.inputs))
    gone = _chosen(blocks, which, dense.keep)
    surgery = skip(gone)
    pruned = apply(share_copy(dense.module), surgery)
    error, moved = prove_depth(dense.module, pruned, gone, dense.inputs)
    if error > TOLERANCE:
        raise PassFailed(
            f"the shallower module differs by {error:.2e} from the dense one with {len(gone)} blocks bypassed"
        )
    proof = Proof(
        holds=True,
        error=error,
        tolerance=TOLERANCE,
        moved=moved,
        perturbed=(),
        reference="dense module with the blocks bypassed",
        trained=trains(pruned, dense.inputs),
    )
    own_tensors(pruned, dense.weights.values())
    before, after = (
        label(module, program, dense.batch).counter().whole()
        for module, program in (
            (dense.module, dense.program),
            (pruned, capture(pruned, dense.inputs, has_rule)),
        )
    )
    paths = {block.path for block in gone}
    share = 1 - len(gone) / len(blocks)
    report = PruneReport(
        amount=f"layers:{len(gone)}",
        importance=IMPORTANCE,
        asked=share,
        reached=share,
        rung=MODULE,
        rung_reason="",
        before=before,
        after=after,
        proof=proof,
        groups=[BlockReport(b.path, "block", 1, int(b.path not in paths), 1, b.importance) for b in blocks],
        unknown_operators={},
    )
    entries: list[Entry] = [
        BlockEntry(
            name=b.path,
            kept=b.path not in paths,
            importance=rounded(b.importance),
            reason="the output changes least without it" if b.path in paths else "whole",
        )
        for b in blocks
    ]
    plan = Plan(report.amount, report.importance, False, dense.shapes(), entries)
    return Pruned(pruned, plan, report, surgery)


def _chosen(blocks: list[Block], which: int | set[str], keep: tuple[str, ...]) -> list[Block]:
    """The blocks that go."""
    count = which if isinstance(which, int) else len(which)
    free = [block for block in blocks if not any(re.search(pattern, block.path) for pattern in keep)]
    if len(free) <= count:
        what = (
            f"{len(free)} residual blocks can be left out"
            if free
            else "no repeated residual block gives back what it is given"
        )
        raise Declined(f"{what}, and one must stay" if free else what)
    if isinstance(which, int):
        return sorted(free, key=lambda block: block.importance)[:count]
    if not which <= {block.path for block in free}:
        raise UsageError(
            f"the plan leaves out {', '.join(sorted(which))}: not all of them are residual blocks here"
        )
    return [block for block in free if block.path in which]
