"""Benchmarks artifacts side by side: those of a run, and any that are given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mlopt.artifact import Artifact, TensorSpec
from mlopt.data.sets import NO_DATA, DataSet
from mlopt.errors import MloptError, UsageError
from mlopt.measuring.rows import bench_rows
from mlopt.measuring.sampling import Contender, Sampler, Workload, sets_for
from mlopt.model.inputs import synthetic
from mlopt.model.trust import Trust
from mlopt.records.bench import BenchRow, Conditions
from mlopt.runtimes.base import Arrays

SERVE_S = 1.0
OTHER_DIMENSIONS = 16
"""The size of dynamic dimensions other than the batch, where no data says what they
are."""


@dataclass(frozen=True)
class BenchProtocol:
    """How artifacts are measured for figures. `budget_s`: seconds of sampling for each
    batch size.

    `sessions`: also the throughput of so many processes at once, at the first batch
    size.
    """

    budget_s: float = 10.0
    conditions: Conditions = field(default_factory=Conditions)
    sessions: int = 1
    seed: int = 0


def workload_for(artifact: Artifact, batch: int, data: DataSet = NO_DATA) -> Workload:
    """Inputs at one batch size, enough sets to rotate.

    Real ones where there is data, other dynamic dimensions as in the data; else random
    ones, other dimensions 16.
    """
    specs = tuple(
        TensorSpec(
            spec.name,
            (batch, *spec.dims[1:]) if spec.dims and isinstance(spec.dims[0], str) else spec.dims,
            spec.dtype,
        )
        for spec in artifact.inputs
    )

    def made(seed: int) -> Arrays:
        return [tensor.numpy() for tensor in synthetic(specs, dynamic=OTHER_DIMENSIONS, seed=seed)]

    first = made(0)
    count = sets_for(sum(array.nbytes for array in first))
    part = data.evaluation or data.any_part()
    if part is not None:
        tensors, _ = part.take(batch * count)
        if len(tensors[0]) >= batch:
            arrays = [tensor.numpy() for tensor in tensors]
            starts = range(0, len(arrays[0]) // batch * batch, batch)
            return Workload(
                batch,
                tuple([np.ascontiguousarray(array[at : at + batch]) for array in arrays] for at in starts),
            )
    return Workload(batch, (first, *(made(seed) for seed in range(1, count))))


def measure(
    contenders: list[Contender],
    workloads: list[Workload],
    protocol: BenchProtocol,
    parents: dict[int, int] | None = None,
) -> tuple[list[BenchRow], dict[int, MloptError]]:
    """(rows of all workloads, errors of contenders that could not be measured). Raises
    what the baseline raises.

    `parents`: which contender another was made from.
    """
    conditions = protocol.conditions
    with Sampler(contenders, workloads, conditions, protocol.seed) as sampler:
        generations = sampler.collect(protocol.budget_s, profile=True)
        several = protocol.sessions > 1 or conditions.device == "cuda"
        together = sampler.throughput(protocol.sessions, SERVE_S) if several else {}
    names = [contender.name for contender in contenders]
    out: list[BenchRow] = []
    for number, (workload, column) in enumerate(zip(workloads, generations, strict=True)):
        rows = bench_rows(
            names, workload.batch, column, conditions, parents, sampler.operators if number == 0 else None
        )
        if workload.batch == workloads[0].batch:
            rows = [replace(row, concurrent=together.get(names.index(row.artifact))) for row in rows]
        out += rows
    return out, sampler.lost


def same_signature(artifacts: list[Artifact]) -> list[Artifact]:
    """The artifacts, each with its inputs known. Raises `UsageError` when they cannot
    be run on the same inputs."""
    known = next((artifact.inputs for artifact in artifacts if artifact.inputs), ())
    if not known:
        raise UsageError("none of these files says what its inputs are", "say it: --input 1,3,224,224")
    artifacts = [a if a.inputs else replace(a, inputs=known) for a in artifacts]
    for artifact in artifacts:
        if [spec.dtype for spec in artifact.inputs] != [spec.dtype for spec in known] or not _compatible(
            artifact.inputs, known
        ):
            shapes = "; ".join(map(str, artifact.inputs)), "; ".join(map(str, known))
            raise UsageError(
                f"{artifact.name} takes {shapes[0]}, the baseline {shapes[1]}",
                "only artifacts with one signature can be compared",
            )
    return artifacts


def _compatible(a: tuple[TensorSpec, ...], b: tuple[TensorSpec, ...]) -> bool:
    """Whether two signatures can take the same inputs: same ranks, equal where both are
    fixed."""
    return len(a) == len(b) and all(
        len(x.dims) == len(y.dims)
        and all(
            isinstance(i, str) or isinstance(j, str) or i == j for i, j in zip(x.dims, y.dims, strict=True)
        )
        for x, y in zip(a, b, strict=True)
    )


def bench_side_by_side(
    artifacts: list[Artifact], trust: Trust, batches: tuple[int, ...], protocol: BenchProtocol
) -> tuple[list[BenchRow], list[MloptError]]:
    """Rows of artifacts whose signatures must agree, interleaved, and what went wrong
    with those that have none. The first is the baseline.

    Raises `UsageError` when they cannot be compared, and what the baseline raises.
    """
    artifacts = same_signature(artifacts)
    for artifact in artifacts:
        for batch in batches:
            if artifact.fixed_batch not in (None, batch):
                raise UsageError(
                    f"{artifact.name}: its batch is fixed at {artifact.fixed_batch}",
                    f"measure with --batch {artifact.fixed_batch}",
                )
    contenders = [
        Contender(artifact.name, artifact, trust.for_model(artifact.name)) for artifact in artifacts
    ]
    workloads = [workload_for(most_fixed(artifacts), batch) for batch in batches]
    rows, lost = measure(contenders, workloads, protocol)
    return rows, list(lost.values())


def most_fixed(artifacts: list[Artifact]) -> Artifact:
    """The artifact whose inputs leave the fewest dimensions open: what it takes, the
    others take."""
    return min(artifacts, key=lambda a: sum(isinstance(dim, str) for spec in a.inputs for dim in spec.dims))
