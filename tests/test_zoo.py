"""Every architecture of the zoo, with no configuration: pruned to half of its MACs,
proved, trainable, mostly in its own class."""

from __future__ import annotations

import pytest
import torch
from zoo import ZOO

from mlopt.model.outputs import first_tensors
from mlopt.pruning.pruner import CLOSE, GRAPH, prune_module

RUNGS: dict[str, str] = {}


@pytest.mark.parametrize("name", ZOO)
def test_half_of_the_macs_go_and_the_rest_is_proved(name: str) -> None:
    if name.startswith("hf_"):
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    module, inputs = ZOO[name]()
    result = prune_module(module, inputs, "macs:0.5")
    report = result.report
    RUNGS[name] = report.rung
    assert abs(report.reached - 0.5) <= CLOSE, report.note
    assert report.proof.holds
    assert report.proof.trained
    assert report.proof.moved > 0, "the proof could not have failed"
    assert sum(p.numel() for p in result.module.parameters()) == report.after.params
    assert report.rung == GRAPH or type(result.module) is type(module)
    with torch.no_grad():
        got, want = first_tensors(result.module.eval()(*inputs)), first_tensors(module.eval()(*inputs))
    assert [t.shape for t in got] == [t.shape for t in want]


def test_at_least_85_in_100_come_back_in_their_own_class() -> None:
    assert len(ZOO) >= 60
    if len(RUNGS) < len(ZOO) - 1:
        pytest.skip("only with the whole zoo")
    own = sum(rung != GRAPH for rung in RUNGS.values())
    assert own >= 0.85 * len(RUNGS), sorted(name for name, rung in RUNGS.items() if rung == GRAPH)
