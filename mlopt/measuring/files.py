"""`mlopt bench A B ...`: any artifacts, side by side."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.context import RunContext, fixed_batch
from mlopt.data import NO_DATA
from mlopt.errors import UsageError
from mlopt.measuring.protocol import measure, rows
from mlopt.measuring.run import timed_inputs
from mlopt.model import bundle as bundles
from mlopt.model.inputs import check_runs, infer, parse_spec
from mlopt.model.sources import open_model
from mlopt.model.trust import Trust
from mlopt.runtimes.remote import Worker


def as_artifact(text: str, trust: Trust, given: tuple[TensorSpec, ...], scratch: Path) -> Artifact:
    """What a MODEL argument is, as something a worker can open. A live module is written as a bundle first."""
    source = open_model(text, trust)
    if source.format is Format.TENSORRT:
        raise UsageError(f"{text}: mlopt builds TensorRT engines and cannot run them yet", "measure it with trtexec or tensorrt_rtx")
    if source.module is not None and source.bundle is not None:
        specs = given or source.inputs
        if not specs:
            specs = infer(source.module)
        else:
            check_runs(source.module, specs)
        root = Path(tempfile.mkdtemp(dir=scratch))
        bundles.write(root, source.module, replace(source.bundle, inputs=specs))
        return Artifact(text, Format.MODULE, root, "", "", specs)
    assert source.path is not None
    specs = given
    if source.format is Format.ONNX:
        from mlopt.model.onnx_file import check_onnx, input_specs

        specs = input_specs(check_onnx(source.path))
    precision = "fp16" if "fp16" in source.path.name else "int8" if "int8" in source.path.name else "fp32"
    return Artifact(text, source.format, source.path.parent, source.path.name, source.sha256, specs, precision)


def bench_files(
    models: list[str], trust: Trust, input: tuple[str, ...], threads: int, batches: tuple[int, ...], budget_s: float, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Rows as in `run.json`; the first model is the baseline. Raises `UsageError` when signatures cannot be compared."""
    given = tuple(parse_spec(text, i) for i, text in enumerate(input))
    with tempfile.TemporaryDirectory(prefix="mlopt-bench-") as scratch:
        artifacts = [as_artifact(text, trust.for_model(text), given, Path(scratch)) for text in models]
        return bench_side_by_side(artifacts, trust, threads, batches, budget_s, device)


def bench_side_by_side(
    artifacts: list[Artifact], trust: Trust, threads: int, batches: tuple[int, ...], budget_s: float, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Measure artifacts whose signatures must agree, interleaved; the first is the baseline."""
    known = next((artifact.inputs for artifact in artifacts if artifact.inputs), ())
    if not known:
        raise UsageError("none of these files says what its inputs are", "say it: --input 1,3,224,224")
    artifacts = [a if a.inputs else replace(a, inputs=known) for a in artifacts]
    for artifact in artifacts:
        if [spec.dtype for spec in artifact.inputs] != [spec.dtype for spec in known] or not _compatible(artifact.inputs, known):
            shapes = "; ".join(map(str, artifact.inputs)), "; ".join(map(str, known))
            raise UsageError(f"{artifact.name} takes {shapes[0]}, the baseline {shapes[1]}", "only artifacts with one signature can be compared")
        for batch in batches:
            if fixed_batch(artifact) not in (None, batch):
                raise UsageError(f"{artifact.name}: its batch is fixed at {fixed_batch(artifact)}", f"measure with --batch {fixed_batch(artifact)}")
    run = RunContext(NO_DATA, None, trust, 0, device, 1, threads, artifacts[0])
    with contextlib.ExitStack() as stack:
        workers: list[Any] = []
        for a in artifacts:
            own = trust.for_model(a.name)
            worker = Worker(a.name, a.format, a.path, threads=threads, device=device, precision=a.precision, trust=own, pin=True)
            workers.append(stack.enter_context(worker))
        out: list[dict[str, Any]] = []
        for batch in batches:
            samples, failed = measure(workers, timed_inputs(artifacts[0], batch, run), batch, budget_s)
            for _, error in failed:
                raise error
            out += rows(workers, samples, threads)
        return out


def _compatible(a: tuple[TensorSpec, ...], b: tuple[TensorSpec, ...]) -> bool:
    """Whether two signatures can take the same inputs: same ranks, equal where both are fixed."""
    return len(a) == len(b) and all(
        len(x.dims) == len(y.dims) and all(isinstance(i, str) or isinstance(j, str) or i == j for i, j in zip(x.dims, y.dims, strict=True))
        for x, y in zip(a, b, strict=True)
    )
