"""`mlopt bench A B ...`: any artifacts, side by side."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.errors import MloptError, UsageError
from mlopt.measuring.run import BenchProtocol, bench_side_by_side
from mlopt.model import bundle as bundles
from mlopt.model.inputs import check_runs, infer, parse_spec
from mlopt.model.sources import open_model
from mlopt.model.trust import Trust
from mlopt.records.bench import BenchRow


def parse_inputs(texts: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """The signature that --input options give, in their order. Raises `UsageError`."""
    return tuple(parse_spec(text, position) for position, text in enumerate(texts))


def as_artifact(text: str, trust: Trust, given: tuple[TensorSpec, ...], scratch: Path) -> Artifact:
    """What a MODEL argument is, as something a worker can open. A live module is
    written as a bundle first."""
    source = open_model(text, trust)
    if source.format == Format.TENSORRT:
        raise UsageError(
            f"{text}: mlopt builds TensorRT engines and cannot run them yet",
            "measure it with trtexec or tensorrt_rtx",
        )
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
    if source.format == Format.ONNX:
        from mlopt.model.onnx_file import check_onnx, input_specs

        specs = input_specs(check_onnx(source.path))
    precision = "fp16" if "fp16" in source.path.name else "int8" if "int8" in source.path.name else "fp32"
    return Artifact(
        text, source.format, source.path.parent, source.path.name, source.sha256, specs, precision
    )


def bench_files(
    models: list[str],
    trust: Trust,
    given: tuple[TensorSpec, ...],
    batches: tuple[int, ...],
    protocol: BenchProtocol,
) -> tuple[list[BenchRow], list[MloptError]]:
    """Rows as in `run.json`, and the errors of what could not be measured; the first
    model is the baseline.

    `given`: the inputs of models that do not know their own. Raises as
    `bench_side_by_side`.
    """
    with tempfile.TemporaryDirectory(prefix="mlopt-bench-") as scratch:
        artifacts = [as_artifact(text, trust.for_model(text), given, Path(scratch)) for text in models]
        return bench_side_by_side(artifacts, trust, batches, protocol)
