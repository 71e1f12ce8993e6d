"""The cut in a copy of the user's module, with the attributes changed that hold sizes
its `forward` has written in.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from mlopt.errors import first_line
from mlopt.model.surgery import Surgery, apply
from mlopt.pruning.analysis import Dense
from mlopt.pruning.backward import trains
from mlopt.pruning.copies import share_copy
from mlopt.pruning.cut import Cut
from mlopt.pruning.ladder.attempts import Attempt, Proved, Refused
from mlopt.pruning.ladder.attributes import Candidate, find_candidates, proposals, with_candidates
from mlopt.pruning.proof import Prover
from mlopt.pruning.reference import reference_of
from mlopt.pruning.surgery import cuts_of, leaf_changes
from mlopt.system.processes import check_stop


def in_module(dense: Dense, cut: Cut) -> Attempt:
    """Apply the cut, change attributes where that is needed, and prove. The module may
    share tensors with the dense one.
    """
    base = cuts_of(cut)
    leaf_changes(dense.module, base, cut.flow.cut_statistics)
    trial = _Trial(dense.module, base, Prover(dense.module, base.weights, dense.inputs, reference_of(cut)))
    for candidates in proposals(find_candidates(dense.module, cut)):
        check_stop()
        proved = trial.fewest(candidates)
        if proved is None:
            continue
        try:
            return replace(proved, proof=replace(proved.proof, trained=trains(proved.module, dense.inputs)))
        except Exception as error:  # whatever a backward raises
            trial.problems.insert(0, f"{type(error).__name__}: {first_line(error)}")
    return Refused(trial.problems[0] if trial.problems else "no proposal ran")


class _Trial:
    """One cut with different attributes changed; `problems`: what went wrong so far."""

    def __init__(self, dense: nn.Module, base: Surgery, prover: Prover) -> None:
        self.dense, self.base, self.prover = dense, base, prover
        self.problems: list[str] = []

    def fewest(self, candidates: tuple[Candidate, ...]) -> Proved | None:
        """With these attributes changed, or with fewer of them if the proof holds
        without.

        An attribute that has the right number by chance may mean something else.
        """
        proved = self.once(candidates)
        for spare in candidates if proved is not None and len(candidates) > 1 else ():
            fewer = tuple(candidate for candidate in candidates if candidate is not spare)
            without = self.once(fewer)
            if without is not None:
                proved, candidates = without, fewer
        return proved

    def once(self, candidates: tuple[Candidate, ...]) -> Proved | None:
        surgery = with_candidates(self.base, candidates)
        pruned = apply(share_copy(self.dense), surgery)
        try:
            proof = self.prover.prove(pruned)
            if proof.holds:
                return Proved(pruned, surgery, proof)
            self.problems.append(
                f"outputs differ by {proof.error:.2e} of the largest (tolerance {proof.tolerance:.0e})"
            )
        except Exception as error:  # whatever forward raises when a size does not fit
            self.problems.append(f"{type(error).__name__}: {first_line(error)}")
        return None
