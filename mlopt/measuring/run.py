"""Benchmarks artifacts side by side and writes the rows into a record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from mlopt.artifact import Artifact, Format, TensorSpec, sha256_json
from mlopt.context import RunContext, fixed_batch
from mlopt.errors import MloptError, PassFailed
from mlopt.measuring.protocol import measure, rows
from mlopt.recipe import Bench
from mlopt.runtimes.remote import Worker


def timed_inputs(artifact: Artifact, batch: int, run: RunContext) -> list[Any]:
    """Real inputs at one batch size; other dynamic dimensions as in the data, or 16."""
    from mlopt.model.inputs import synthetic

    part = run.data.evaluation or run.data.any_part()
    if part is not None:
        tensors, _ = part.take(batch)
        if len(tensors[0]) == batch:
            return [tensor.numpy() for tensor in tensors]
    specs = tuple(
        TensorSpec(spec.name, (batch, *spec.dims[1:]) if spec.dims and isinstance(spec.dims[0], str) else spec.dims, spec.dtype)
        for spec in artifact.inputs
    )
    return [tensor.numpy() for tensor in synthetic(specs, dynamic=16)]


def bench_artifacts(
    record: dict[str, Any],
    artifacts: list[tuple[str, Artifact]],
    config: Bench,
    run: RunContext,
    previous: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Measure everything that can run here; the first artifact is the baseline. A crash costs its own row only."""
    key = sha256_json([[name, artifact.digest] for name, artifact in artifacts] + [config.model_dump(mode="json"), run.data.fingerprint, run.device])
    if previous.get("bench_key") == key and previous.get("bench") and previous.get("environment", {}).get("cpu") == record["environment"]["cpu"]:
        record["bench"], record["bench_key"] = previous["bench"], key
        record["not_measured"] = list(dict.fromkeys(record["not_measured"] + previous["not_measured"]))
        return
    runnable = [(name, artifact) for name, artifact in artifacts if artifact.format is not Format.TENSORRT]
    say(f"measuring {len(runnable)} artifacts, interleaved, {config.threads} thread{'s' if config.threads > 1 else ''} ...")
    with contextlib.ExitStack() as stack:
        workers: list[Any] = []
        kept: list[Artifact] = []
        for name, artifact in runnable:
            try:
                device = run.device if artifact.format is not Format.AOTI else "cpu"
                worker = Worker(
                    name,
                    artifact.format,
                    artifact.path,
                    threads=config.threads,
                    device=device,
                    precision=artifact.precision,
                    trust=run.trust,
                    pin=True,
                )
                workers.append(stack.enter_context(worker))
                kept.append(artifact)
            except MloptError as error:
                if not workers:
                    raise
                record["not_measured"].append(f"{name}: {error.message}")
        for batch in config.batch:
            able = [i for i, artifact in enumerate(kept) if fixed_batch(artifact) in (None, batch)]
            for i, artifact in enumerate(kept):
                if i not in able:
                    record["not_measured"].append(f"{workers[i].name} at batch {batch}: its batch is fixed at {fixed_batch(artifact)}")
            if 0 not in able:
                continue
            chosen = [workers[i] for i in able]
            samples, failed = measure(chosen, timed_inputs(kept[0], batch, run), batch, config.budget_s, run.seed)
            record["not_measured"] += [f"{name} at batch {batch}: {error.message}" for name, error in failed]
            record["bench"] += rows(chosen, samples, config.threads)
    if not record["bench"]:
        fixed = fixed_batch(runnable[0][1])
        raise PassFailed(f"nothing could be measured: the baseline's batch is fixed at {fixed}", f"measure with --batch {fixed}")
    record["bench_key"] = key
