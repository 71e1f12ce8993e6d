"""Are the candidate's outputs outputs at all, and how far are they from the baseline's? Asked before anything is timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.artifact import Artifact
from mlopt.checking.accuracy import score
from mlopt.checking.parity import ParityResult, compare
from mlopt.data.sets import Part
from mlopt.errors import BackendMissing, DataError, MloptError
from mlopt.judging.policy import Parity
from mlopt.judging.verdict import Row, Word
from mlopt.measuring.protocol import Conditions
from mlopt.measuring.sampling import Entry, Shape
from mlopt.runtimes.base import Arrays
from mlopt.runtimes.remote import Worker, WorkerSpec

CHUNK = 64
FIRST_ANSWER_S = 120.0
"""A gate is waited for: an artifact that has not answered by then hangs."""
MAX_SAMPLES, MAX_BYTES = 10_000, 256 * 2**20


@dataclass(frozen=True)
class Answers:
    """What both sides gave on the same inputs: `accuracy` of each in percent, None without labels."""

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


def examples(shape: Shape, part: Part | None, both: tuple[Artifact, Artifact]) -> tuple[list[NDArray[Any]], torch.Tensor | None, int]:
    """(inputs, labels, batch of a call): the evaluation data, or the timed inputs one after the other."""
    fixed = next((size for artifact in both if (size := artifact.fixed_batch) is not None), None)
    if part is None:
        return [np.concatenate(column) for column in zip(*shape.sets, strict=True)], None, shape.batch
    one, _ = part.take(1)
    tensors, target = part.take(max(1, min(MAX_SAMPLES, MAX_BYTES // max(1, sum(t.numel() * t.element_size() for t in one)))))
    whole = len(tensors[0]) if fixed is None else len(tensors[0]) // fixed * fixed
    if not whole:
        raise DataError(f"the data has {len(tensors[0])} samples, the artifact takes {fixed} at once", "give more data")
    return [t[:whole].numpy() for t in tensors], None if target is None else target[:whole], fixed or CHUNK


def _run(entry: Entry, inputs: Arrays, chunk: int, on: Conditions) -> list[NDArray[Any]]:
    artifact = entry.artifact
    spec = WorkerSpec(artifact.format, artifact.path, on.threads, on.device, artifact.precision, entry.trust)
    with Worker(entry.name, spec) as worker:
        return [output for output in worker.run(inputs, chunk, FIRST_ANSWER_S) if output.dtype.kind == "f"]


def check(baseline: Entry, candidate: Entry, shape: Shape, part: Part | None, on: Conditions) -> Answers:
    """Run both on the same inputs. Raises `WrongOutputs`, `BaselineFailed`, and what running the candidate raises."""
    inputs, target, chunk = examples(shape, part, (baseline.artifact, candidate.artifact))
    try:
        wanted = _run(baseline, inputs, chunk, on)
    except MloptError as error:
        if error.exit_code == BackendMissing.exit_code:
            raise
        raise BaselineFailed(error) from error
    got = _run(candidate, inputs, chunk, on)
    if [array.shape for array in wanted] != [array.shape for array in got]:
        mine, yours = (", ".join(str(tuple(array.shape)) for array in outputs) for outputs in (got, wanted))
        raise WrongOutputs(f"its outputs have the shapes {mine}, those of the baseline {yours}")
    if not all(np.isfinite(array).all() for array in got):
        also = "" if all(np.isfinite(array).all() for array in wanted) else " (so do the baseline's)"
        raise WrongOutputs(f"it gives NaN or infinite outputs{also}")
    if _constant(got) and not _constant(wanted):
        raise WrongOutputs("it gives the same output whatever the input is")
    if target is None:
        return Answers(compare(wanted, got), None, None)
    metric, was = score(torch.from_numpy(wanted[0]), target)
    return Answers(compare(wanted, got), metric, (was, score(torch.from_numpy(got[0]), target)[1]))


def _constant(outputs: list[NDArray[Any]]) -> bool:
    return all(len(array) > 1 and bool((array == array[:1]).all()) for array in outputs if array.ndim)


def parity_rows(result: ParityResult, limits: Parity, artifact: str) -> list[Row]:
    """One row for each limit that was asked for. A breach is INVALID: how fast a wrong answer comes is of no interest."""
    out = []
    for name, value, limit, sign in (
        ("max_error", result.max_error, limits.max_error, 1),
        ("cosine", result.cosine, limits.min_cosine, -1),
        ("agreement", result.agreement, limits.min_agreement, -1),
    ):
        if limit is None:
            continue
        word: Word = "INCOMPARABLE" if value is None else "INVALID" if sign * value > sign * limit else "PASS"
        note = "the outputs have no classes" if value is None else f"{name} is {value:.4g}, the limit {limit:g}"
        out.append(Row("parity", artifact, name, None, value, limit, word, note=note))
    return out
