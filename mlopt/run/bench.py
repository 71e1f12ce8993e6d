"""Measures what a run made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlopt import __version__
from mlopt.artifact import Artifact, sha256_json
from mlopt.catalog import backend_for
from mlopt.errors import PassFailed
from mlopt.measuring.run import BenchProtocol, measure, workload_for
from mlopt.measuring.sampling import Contender
from mlopt.passes.context import RunContext
from mlopt.recipe.schema import Bench
from mlopt.records.bench import BenchRow, Conditions
from mlopt.records.machine import Machine
from mlopt.records.run import RunRecord
from mlopt.system.progress import Say


@dataclass(frozen=True)
class Measured:
    """Rows, what they depend on, and what could not be measured, in words."""

    rows: tuple[BenchRow, ...]
    key: str
    not_measured: tuple[str, ...]


def bench_key(artifacts: list[tuple[str, Artifact]], config: Bench, run: RunContext) -> str:
    """What rows depend on, but for the machine."""
    named: list[object] = [[name, artifact.digest] for name, artifact in artifacts]
    return sha256_json(
        [__version__, *named, config.model_dump(mode="json"), run.data.fingerprint, run.device]
    )


def measured_before(previous: RunRecord | None, key: str, here: Machine) -> Measured | None:
    """What the run before this one measured, if it measured the same on a machine whose
    figures are comparable."""
    if (
        previous is None
        or previous.bench_key != key
        or not previous.bench
        or not previous.environment.comparable(here)
    ):
        return None
    return Measured(previous.bench, key, previous.not_measured)


def measure_run(
    artifacts: list[tuple[str, Artifact]],
    parents: Mapping[str, str],
    config: Bench,
    run: RunContext,
    say: Say,
) -> Measured:
    """Measure everything that can run here; the first artifact is the baseline. A crash
    costs its own row only.

    `parents`: the name that each was made from. Raises `PassFailed` when the baseline
    cannot be measured.
    """
    runnable = [(name, artifact) for name, artifact in artifacts if backend_for(artifact.format).can_run]
    threads = f"{config.threads} thread{'s' if config.threads > 1 else ''}"
    say(f"measuring {len(runnable)} artifacts, interleaved, {threads} ...", "working")
    base = runnable[0][1]
    not_measured, batches = [], []
    for batch in config.batch:
        for name, artifact in runnable:
            if artifact.fixed_batch not in (None, batch):
                not_measured.append(f"{name} at batch {batch}: its batch is fixed at {artifact.fixed_batch}")
        if base.fixed_batch in (None, batch):
            batches.append(batch)
    if not batches:
        fixed = base.fixed_batch
        raise PassFailed(
            f"nothing could be measured: the baseline's batch is fixed at {fixed}",
            f"measure with --batch {fixed}",
        )
    contenders = [
        Contender(name, artifact, run.trust, device_of(artifact, run.device)) for name, artifact in runnable
    ]
    names = [contender.name for contender in contenders]
    workloads = [workload_for(base, batch, run.data) for batch in batches]
    above = {
        names.index(child): names.index(parent)
        for child, parent in parents.items()
        if child in names and parent in names
    }
    protocol = BenchProtocol(config.budget_s, Conditions(config.threads, run.device), seed=run.seed)
    rows, lost = measure(contenders, workloads, protocol, above)
    not_measured += [f"{names[index]}: {error.message}" for index, error in lost.items()]
    return Measured(tuple(rows), bench_key(artifacts, config, run), tuple(not_measured))


def device_of(artifact: Artifact, device: str) -> str | None:
    """`cpu` for what only runs there; None where the run's device will do."""
    return None if device in backend_for(artifact.format).devices else "cpu"
