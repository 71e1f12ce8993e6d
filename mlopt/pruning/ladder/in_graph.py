"""The cut in the captured graph itself: the result is a `torch.fx.GraphModule`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlopt.errors import PassFailed, first_line
from mlopt.model.surgery import Surgery, cut_tensor
from mlopt.model.tensors import in_place_of
from mlopt.pruning.analysis import Dense
from mlopt.pruning.backward import trains
from mlopt.pruning.call_arguments import Unwritten
from mlopt.pruning.cut import Cut
from mlopt.pruning.ladder.attempts import Attempt, Proved, Refused
from mlopt.pruning.ladder.rewrite import rewrite
from mlopt.pruning.proof import Prover
from mlopt.pruning.reference import reference_of
from mlopt.pruning.surgery import cuts_of


def in_graph(dense: Dense, cut: Cut) -> Attempt:
    """Rewrite the captured graph: with a free batch size if the model can be captured
    so, else with the one at hand.
    """
    surgery = cuts_of(cut)
    prover = Prover(dense.module, surgery.weights, dense.inputs, reference_of(cut))
    problem = ""
    for free in (True, False):
        try:
            proved = _rewritten(
                dense, _with_free_batch(dense, cut, surgery) if free else cut, surgery, prover
            )
            if proved.proof.holds:
                return replace(
                    proved, proof=replace(proved.proof, trained=trains(proved.module, dense.inputs))
                )
            problem = f"the rewritten graph differs by {proved.proof.error:.2e} of the largest output"
        except (
            Unwritten,
            PassFailed,
            RuntimeError,
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AssertionError,
        ) as error:
            problem = problem or f"{type(error).__name__}: {first_line(error)}"
    return Refused(f"the graph could not be rewritten either: {problem}")


def _rewritten(dense: Dense, cut: Cut, surgery: Surgery, prover: Prover) -> Proved:
    by_id = {id(dense.weights[name]): keeps for name, keeps in surgery.weights.items()}
    made = {
        id(tensor): (
            in_place_of(tensor, cut_tensor(tensor, by_id[id(tensor)])) if id(tensor) in by_id else tensor
        )
        for tensor in dense.weights.values()
    }
    module = rewrite(cut, {name: made[id(tensor)] for name, tensor in dense.weights.items()}, dense.module)
    module.train(dense.module.training)
    return Proved(module, surgery, prover.prove(module))


def _with_free_batch(dense: Dense, cut: Cut, surgery: Surgery) -> Cut:
    """The same cut on a capture whose batch size is free. Raises `Unwritten` where its
    labels do not fit.
    """
    flow = dense.with_free_batch(cut.flow.cut_statistics).flow
    dropped = np.zeros(len(flow.labels), dtype=bool)
    for name, keeps in surgery.weights.items():
        for labels, keep in zip(flow.weights[name], keeps, strict=True):
            if keep is not None:
                dropped[np.delete(flow.labels.find(labels), keep)] = True
    made = Cut(flow, dropped)
    if cuts_of(made).weights != surgery.weights:
        raise Unwritten("the capture with a free batch size couples channels otherwise")
    return made
