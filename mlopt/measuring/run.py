"""Benchmarks artifacts side by side: those of a run, and any that are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlopt.artifact import Artifact, TensorSpec
from mlopt.data.sets import NO_DATA, DataSet
from mlopt.errors import MloptError, UsageError
from mlopt.measuring.protocol import Conditions
from mlopt.measuring.rows import bench_rows
from mlopt.measuring.sampling import Entry, Sampler, Shape, sets_for
from mlopt.model.trust import Trust
from mlopt.runtimes.base import Arrays

SERVE_S = 1.0


def timed_shape(artifact: Artifact, batch: int, data: DataSet = NO_DATA) -> Shape:
    """Inputs at one batch size, enough sets to rotate: real ones where there is data, other dynamic dimensions as in the data, or 16."""
    from mlopt.model.inputs import synthetic

    specs = tuple(
        TensorSpec(spec.name, (batch, *spec.dims[1:]) if spec.dims and isinstance(spec.dims[0], str) else spec.dims, spec.dtype)
        for spec in artifact.inputs
    )

    def made(seed: int) -> Arrays:
        return [tensor.numpy() for tensor in synthetic(specs, dynamic=16, seed=seed)]

    first = made(0)
    count = sets_for(sum(array.nbytes for array in first))
    part = data.evaluation or data.any_part()
    if part is not None:
        tensors, _ = part.take(batch * count)
        if len(tensors[0]) >= batch:
            arrays = [tensor.numpy() for tensor in tensors]
            whole = len(arrays[0]) // batch
            return Shape(batch, tuple([np.ascontiguousarray(array[i * batch : (i + 1) * batch]) for array in arrays] for i in range(whole)))
    return Shape(batch, (first, *(made(seed) for seed in range(1, count))))


def measure(
    entries: list[Entry],
    shapes: list[Shape],
    conditions: Conditions,
    budget_s: float,
    seed: int = 0,
    parents: dict[int, int] | None = None,
    sessions: int = 1,
) -> tuple[list[dict[str, Any]], dict[int, MloptError]]:
    """(rows of all shapes, errors of entries that could not be measured). Raises what the baseline raises.

    `sessions`: also the throughput of so many processes at once, at the first shape.
    """
    with Sampler(entries, shapes, conditions, seed) as sampler:
        epochs = sampler.collect(budget_s, profile=True)
        together = sampler.throughput(sessions, SERVE_S) if sessions > 1 or conditions.device == "cuda" else {}
    names = [entry.name for entry in entries]
    out: list[dict[str, Any]] = []
    for number, (shape, column) in enumerate(zip(shapes, epochs, strict=True)):
        out += bench_rows(names, shape.batch, column, conditions, parents, sampler.operators if number == 0 else None)
    for row in out:
        if row["batch"] == shapes[0].batch and names.index(row["artifact"]) in together:
            row["concurrent"] = together[names.index(row["artifact"])]
    return out, sampler.lost


def same_signature(artifacts: list[Artifact]) -> list[Artifact]:
    """The artifacts, each with its inputs known. Raises `UsageError` when they cannot be run on the same inputs."""
    known = next((artifact.inputs for artifact in artifacts if artifact.inputs), ())
    if not known:
        raise UsageError("none of these files says what its inputs are", "say it: --input 1,3,224,224")
    artifacts = [a if a.inputs else replace(a, inputs=known) for a in artifacts]
    for artifact in artifacts:
        if [spec.dtype for spec in artifact.inputs] != [spec.dtype for spec in known] or not _compatible(artifact.inputs, known):
            shapes = "; ".join(map(str, artifact.inputs)), "; ".join(map(str, known))
            raise UsageError(f"{artifact.name} takes {shapes[0]}, the baseline {shapes[1]}", "only artifacts with one signature can be compared")
    return artifacts


def _compatible(a: tuple[TensorSpec, ...], b: tuple[TensorSpec, ...]) -> bool:
    """Whether two signatures can take the same inputs: same ranks, equal where both are fixed."""
    return len(a) == len(b) and all(
        len(x.dims) == len(y.dims) and all(isinstance(i, str) or isinstance(j, str) or i == j for i, j in zip(x.dims, y.dims, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def bench_side_by_side(
    artifacts: list[Artifact],
    trust: Trust,
    batches: tuple[int, ...],
    budget_s: float,
    conditions: Conditions,
    sessions: int = 1,
) -> tuple[list[dict[str, Any]], list[MloptError]]:
    """Rows of artifacts whose signatures must agree, interleaved, and what went wrong with those that have none. The first is the baseline.

    Raises `UsageError` when they cannot be compared, and what the baseline raises.
    """
    artifacts = same_signature(artifacts)
    for artifact in artifacts:
        for batch in batches:
            if artifact.fixed_batch not in (None, batch):
                raise UsageError(f"{artifact.name}: its batch is fixed at {artifact.fixed_batch}", f"measure with --batch {artifact.fixed_batch}")
    entries = [Entry(artifact.name, artifact, trust.for_model(artifact.name)) for artifact in artifacts]
    shapes = [timed_shape(most_fixed(artifacts), batch) for batch in batches]
    rows, lost = measure(entries, shapes, conditions, budget_s, sessions=sessions)
    return rows, list(lost.values())


def most_fixed(artifacts: list[Artifact]) -> Artifact:
    """The artifact whose inputs leave the fewest dimensions open: what it takes, the others take."""
    return min(artifacts, key=lambda a: sum(isinstance(dim, str) for spec in a.inputs for dim in spec.dims))
