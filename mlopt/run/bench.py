"""Measures what a run made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlopt.artifact import Artifact, Format, sha256_json
from mlopt.errors import PassFailed
from mlopt.measuring.run import BenchProtocol, measure, workload_for
from mlopt.measuring.sampling import Contender
from mlopt.passes.context import RunContext
from mlopt.recipe.schema import Bench
from mlopt.records.bench import Conditions
from mlopt.records.edge import to_json


def bench_artifacts(
    record: dict[str, Any],
    artifacts: list[tuple[str, Artifact]],
    config: Bench,
    run: RunContext,
    previous: dict[str, Any],
    say: Callable[[str], None],
    parents: dict[str, str] | None = None,
) -> None:
    """Measure everything that can run here and write the rows into a record; the first artifact is the baseline. A crash costs its own row
    only. `parents`: the name that each was made from."""
    key = sha256_json([[name, artifact.digest] for name, artifact in artifacts] + [config.model_dump(mode="json"), run.data.fingerprint, run.device])
    if previous.get("bench_key") == key and previous.get("bench") and previous.get("environment", {}).get("cpu") == record["environment"]["cpu"]:
        record["bench"], record["bench_key"] = previous["bench"], key
        record["not_measured"] = list(dict.fromkeys(record["not_measured"] + previous["not_measured"]))
        return
    runnable = [(name, artifact) for name, artifact in artifacts if artifact.format is not Format.TENSORRT]
    say(f"measuring {len(runnable)} artifacts, interleaved, {config.threads} thread{'s' if config.threads > 1 else ''} ...")
    entries = [Contender(name, artifact, run.trust, "cpu" if artifact.format is Format.AOTI else None) for name, artifact in runnable]
    base = runnable[0][1]
    batches = []
    for batch in config.batch:
        for name, artifact in runnable:
            if artifact.fixed_batch not in (None, batch):
                record["not_measured"].append(f"{name} at batch {batch}: its batch is fixed at {artifact.fixed_batch}")
        if base.fixed_batch in (None, batch):
            batches.append(batch)
    if not batches:
        fixed = base.fixed_batch
        raise PassFailed(f"nothing could be measured: the baseline's batch is fixed at {fixed}", f"measure with --batch {fixed}")
    conditions = Conditions(config.threads, run.device)
    shapes = [workload_for(base, batch, run.data) for batch in batches]
    names = [entry.name for entry in entries]
    above = {names.index(child): names.index(parent) for child, parent in (parents or {}).items() if child in names and parent in names}
    rows, lost = measure(entries, shapes, BenchProtocol(config.budget_s, conditions, seed=run.seed), above)
    record["bench"] += [to_json(row) for row in rows]
    record["not_measured"] += [f"{names[index]}: {error.message}" for index, error in lost.items()]
    record["bench_key"] = key
