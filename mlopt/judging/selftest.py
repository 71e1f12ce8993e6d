"""What the gate's word is worth on this machine: two small networks against themselves,
and against themselves slowed by a known amount."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.errors import BackendMissing
from mlopt.measuring.duet import Duet, Question, Stopping, run_duet
from mlopt.measuring.sampling import Contender, Sampler, Workload, sets_for
from mlopt.records.bench import Conditions
from mlopt.records.gate import SelfTestRow, Word
from mlopt.runtimes.timing import Slowdown
from mlopt.system.progress import Say, silent

ALPHA = 0.01
TAIL_PERCENT, TAIL_TOLERANCE = 95.0, 0.10


@dataclass(frozen=True)
class Profile:
    """A tolerance on latency and the seconds that a comparison may take."""

    tolerance: float
    budget_s: float

    def questions(self) -> list[Question]:
        """Latency, and the guard on the tail."""
        latency = Question("latency", limit=math.log1p(self.tolerance))
        return [latency, Question("tail", TAIL_PERCENT, math.log1p(TAIL_TOLERANCE), guard=True)]


PROFILES = {"default": Profile(0.025, 30.0), "strict": Profile(0.015, 60.0)}


@dataclass(frozen=True)
class Case:
    """One kind of comparison. `want`: the verdict that would be right."""

    name: str
    profile: str
    slowdown: Slowdown
    want: Word


TAIL = Slowdown(share=0.1, factor=1.5)
CASES = (
    Case("A/A", "default", Slowdown(), "PASS"),
    Case("+5%", "default", Slowdown(every=0.05), "FAIL"),
    Case("one call in ten 1.5x", "default", TAIL, "FAIL"),
    Case("A/A", "strict", Slowdown(), "PASS"),
    Case("+5%", "strict", Slowdown(every=0.05), "FAIL"),
    Case("+3%", "strict", Slowdown(every=0.03), "FAIL"),
)


def _convolutions(
    make: Any, numpy_helper: Any, draw: np.random.Generator
) -> tuple[list[Any], list[Any], str]:
    """Four convolutions: bound by arithmetic."""
    nodes, weights, x, channels = [], [], "x", 3
    for i, (width, stride) in enumerate([(48, 2), (48, 1), (96, 2), (96, 1)]):
        weights.append(
            numpy_helper.from_array(
                draw.standard_normal((width, channels, 3, 3)).astype(np.float32) * 0.1, f"w{i}"
            )
        )
        nodes.append(make.make_node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1] * 4, strides=[stride, stride]))
        nodes.append(make.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        x, channels = f"r{i}", width
    return nodes, weights, x


def _perceptron(make: Any, numpy_helper: Any, draw: np.random.Generator) -> tuple[list[Any], list[Any], str]:
    """Three layers with 8 MB of weights for a batch of 16: bound by memory."""
    nodes, weights, x = [], [], "x"
    for i, (before, after) in enumerate([(512, 1024), (1024, 1024), (1024, 512)]):
        weights.append(
            numpy_helper.from_array(draw.standard_normal((before, after)).astype(np.float32) * 0.03, f"w{i}")
        )
        nodes += [
            make.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]),
            make.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        x = f"r{i}"
    return nodes, weights, x


NETWORKS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "convolutions": (_convolutions, (1, 3, 64, 64), (1, 96, 16, 16)),
    "memory-bound": (_perceptron, (16, 512), (16, 512)),
}
"""How each is built, the shape of its input and of its output."""


def network(name: str, place: Path) -> tuple[Artifact, Workload]:
    """One of the two as an ONNX file, with inputs to time it on. Raises
    `BackendMissing`."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise BackendMissing("onnx", "pip install 'mlopt[onnx,cpu]'") from error
    build, dims, out = NETWORKS[name]
    draw = np.random.default_rng(0)
    nodes, weights, last = build(helper, numpy_helper, draw)
    x, y = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, dims),
        helper.make_tensor_value_info(last, TensorProto.FLOAT, out),
    )
    model = helper.make_model(
        helper.make_graph(nodes, name, [x], [y], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, place / f"{name}.onnx")
    sets = tuple(
        [draw.standard_normal(dims).astype(np.float32)] for _ in range(sets_for(4 * math.prod(dims)))
    )
    return Artifact(name, Format.ONNX, place, f"{name}.onnx", "", (TensorSpec("x", dims),)), Workload(
        dims[0], sets
    )


def trial(case: Case, artifact: Artifact, workload: Workload, seed: int) -> tuple[Word, Duet]:
    """One comparison: the verdict of latency and tail together, and all that was
    measured."""
    profile = PROFILES[case.profile]
    slowdown = case.slowdown if case.slowdown != Slowdown() else None
    contenders = [Contender("baseline", artifact), Contender("candidate", artifact, slowdown=slowdown)]
    with Sampler(contenders, [workload], Conditions(), seed) as sampler:
        duet = run_duet(sampler, [profile.questions()], Stopping(profile.budget_s, ALPHA, families=2))
    verdicts = {outcome.question.metric: outcome.verdict for outcome in duet.outcomes}
    return "FAIL" if "FAIL" in verdicts.values() else verdicts["latency"], duet


@contextlib.contextmanager
def networks() -> Iterator[dict[str, tuple[Artifact, Workload]]]:
    """Both networks, in a scratch directory."""
    with tempfile.TemporaryDirectory(prefix="mlopt-selftest-") as place:
        yield {name: network(name, Path(place)) for name in NETWORKS}


@dataclass
class Tally:
    """The trials of one case: their verdicts, and the seconds that each took."""

    case: Case
    verdicts: list[Word] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def row(self) -> SelfTestRow:
        """The trials counted."""
        right, inconclusive = self.verdicts.count(self.case.want), self.verdicts.count("INCONCLUSIVE")
        return SelfTestRow(
            name=self.case.name,
            profile=self.case.profile,
            want=self.case.want,
            right=right,
            wrong=len(self.verdicts) - right - inconclusive,
            inconclusive=inconclusive,
            trials=len(self.verdicts),
            median_s=float(np.median(self.seconds)) if self.seconds else None,
            longest_s=max(self.seconds, default=None),
        )


def self_test(budget_s: float, say: Say = silent, seed: int = 0) -> list[SelfTestRow]:
    """Trials of all cases in turn, on both networks, until the time is over."""
    tallies = [Tally(case) for case in CASES]
    draw, begin = random.Random(seed), time.monotonic()
    with networks() as made:
        turns = itertools.cycle((tally, *net) for tally in tallies for net in made.values())
        for done, (tally, artifact, workload) in enumerate(turns, 1):
            verdict, duet = trial(tally.case, artifact, workload, draw.randrange(1 << 30))
            tally.verdicts.append(verdict)
            tally.seconds.append(duet.seconds)
            passed = time.monotonic() - begin
            say(f"{done} comparisons, {passed:.0f} of {budget_s:.0f} s ...", "working")
            if passed >= budget_s:
                break
    return [tally.row() for tally in tallies]
