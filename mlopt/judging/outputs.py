"""Are the candidate's outputs outputs at all, and how far are they from the baseline's?
Asked before anything is timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.artifact import Artifact
from mlopt.checking.accuracy import score
from mlopt.checking.parity import ParityResult, compare
from mlopt.checking.samples import EvaluationSamples, evaluation_samples
from mlopt.data.sets import Part
from mlopt.errors import BackendMissing, MloptError
from mlopt.judging.policy import Parity
from mlopt.measuring.sampling import Contender, Workload, start_worker
from mlopt.records.bench import Conditions
from mlopt.records.gate import GateRow, Word

FIRST_ANSWER_S = 120.0
"""A gate is waited for: an artifact that has not answered by then hangs."""


@dataclass(frozen=True)
class Answers:
    """What both sides gave on the same inputs: `accuracy` of each in percent, None
    without labels."""

    parity: ParityResult
    metric: str | None
    accuracy: tuple[float, float] | None


class BaselineFailed(Exception):
    """The baseline could not be run; the error says why."""

    def __init__(self, error: MloptError) -> None:
        super().__init__(error.message)
        self.error = error


class WrongOutputs(Exception):
    """The candidate's outputs cannot be right, whatever it was trained for."""


def samples_for_both(
    workload: Workload, part: Part | None, both: tuple[Artifact, Artifact]
) -> EvaluationSamples:
    """The evaluation data, or the timed inputs one after the other."""
    if part is None:
        return EvaluationSamples(
            [np.concatenate(column) for column in zip(*workload.sets, strict=True)], None, workload.batch
        )
    return evaluation_samples(
        part, next((artifact.fixed_batch for artifact in both if artifact.fixed_batch is not None), None)
    )


def _run(contender: Contender, samples: EvaluationSamples, conditions: Conditions) -> list[NDArray[Any]]:
    with start_worker(contender, conditions, pin=False) as worker:
        outputs = worker.run(samples.inputs, samples.chunk, FIRST_ANSWER_S)
    return [output for output in outputs if output.dtype.kind == "f"]


def check(
    baseline: Contender, candidate: Contender, samples: EvaluationSamples, conditions: Conditions
) -> Answers:
    """Run both on the same inputs. Raises `WrongOutputs`, `BaselineFailed`, and what
    running the candidate raises."""
    try:
        wanted = _run(baseline, samples, conditions)
    except MloptError as error:
        if error.exit_code == BackendMissing.exit_code:
            raise
        raise BaselineFailed(error) from error
    got = _run(candidate, samples, conditions)
    if [array.shape for array in wanted] != [array.shape for array in got]:
        mine, yours = (", ".join(str(tuple(array.shape)) for array in outputs) for outputs in (got, wanted))
        raise WrongOutputs(f"its outputs have the shapes {mine}, those of the baseline {yours}")
    if not all(np.isfinite(array).all() for array in got):
        also = "" if all(np.isfinite(array).all() for array in wanted) else " (so do the baseline's)"
        raise WrongOutputs(f"it gives NaN or infinite outputs{also}")
    if _constant(got) and not _constant(wanted):
        raise WrongOutputs("it gives the same output whatever the input is")
    target = samples.target
    if target is None:
        return Answers(compare(wanted, got), None, None)
    metric, was = score(torch.from_numpy(wanted[0]), target)
    return Answers(compare(wanted, got), metric, (was, score(torch.from_numpy(got[0]), target)[1]))


def _constant(outputs: list[NDArray[Any]]) -> bool:
    return all(len(array) > 1 and bool((array == array[:1]).all()) for array in outputs if array.ndim)


def parity_rows(result: ParityResult, limits: Parity, artifact: str) -> list[GateRow]:
    """One row for each limit that was asked for. A breach is INVALID: how fast a wrong
    answer comes is of no interest."""
    out = []
    for name, value, limit, sign in (
        ("max_error", result.max_error, limits.max_error, 1),
        ("cosine", result.cosine, limits.min_cosine, -1),
        ("agreement", result.agreement, limits.min_agreement, -1),
    ):
        if limit is None:
            continue
        word: Word = "INCOMPARABLE" if value is None else "INVALID" if sign * value > sign * limit else "PASS"
        note = (
            "the outputs have no classes" if value is None else f"{name} is {value:.4g}, the limit {limit:g}"
        )
        out.append(GateRow("parity", artifact, name, None, value, limit, word, note=note))
    return out
