"""What a run holds against every pass: the outputs of exports, the accuracy of
everything, and the verdict on accuracy at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.artifact import Artifact, Format
from mlopt.catalog import backend_for
from mlopt.checking.accuracy import score
from mlopt.checking.parity import ParityResult, compare
from mlopt.checking.parity import judge as judge_parity
from mlopt.checking.samples import EvaluationSamples, evaluation_samples
from mlopt.data.labels import check_batch, check_labels
from mlopt.data.parts import Part
from mlopt.errors import PassFailed, VerdictFailed
from mlopt.model.outputs import first_tensors
from mlopt.passes.context import RunContext
from mlopt.recipe import schema as recipe
from mlopt.records.run import Accuracy, Parity, RunRecord
from mlopt.runtimes.base import OpenOptions
from mlopt.runtimes.opening import open_runtime, opener_of
from mlopt.runtimes.remote import Worker, WorkerSpec

Arrays = list[NDArray[Any]]


def in_chunks(call: Callable[[Arrays], Arrays], inputs: Arrays, chunk: int) -> Arrays:
    """Outputs for all inputs, at most `chunk` samples a call, joined along the first
    dimension."""
    parts = [call([array[at : at + chunk] for array in inputs]) for at in range(0, len(inputs[0]), chunk)]
    return [np.concatenate(column) if column[0].ndim else column[0] for column in zip(*parts, strict=True)]


def _floating(outputs: Arrays) -> Arrays:
    return [array for array in outputs if array.dtype.kind == "f"]


class Checks:
    """The evaluation samples of a run, and what the module and its exports make of
    them. Each is computed once."""

    def __init__(self, run: RunContext, config: recipe.Parity) -> None:
        self._run, self._config = run, config
        self._part: Part | None = run.data.evaluation or run.data.any_part()
        self._samples: EvaluationSamples | None = None
        self._reference: tuple[str, Arrays] | None = None

    def _fitting(self, artifact: Artifact) -> EvaluationSamples:
        """Evaluation samples, read once, cut to whole batches where the artifact's
        batch is fixed."""
        if self._samples is None:
            if self._part is not None:
                self._samples = evaluation_samples(self._part)
            else:
                tensors, target = self._run.samples(artifact, self._config.samples)
                self._samples = EvaluationSamples([tensor.numpy() for tensor in tensors], target)
        return self._samples.in_batches_of(artifact.fixed_batch)

    def outputs_of_module(self, artifact: Artifact, inputs: Arrays, chunk: int) -> Arrays:
        """What a bundle computes, in evaluation mode."""
        key = f"{artifact.digest}:{chunk}:{len(inputs[0])}"
        if self._reference is None or self._reference[0] != key:
            module = self._run.modules.copy(artifact)

            def call(arrays: Arrays) -> Arrays:
                return [tensor.numpy() for tensor in first_tensors(module(*map(torch.from_numpy, arrays)))]

            with torch.no_grad():  # not inference_mode: a tensor that forward keeps must be trainable
                self._reference = key, in_chunks(call, inputs, chunk)
        return self._reference[1]

    def _outputs_of_file(self, artifact: Artifact, inputs: Arrays, chunk: int) -> Arrays:
        """What an export computes. ONNX in a process of its own: a graph may crash the
        runtime."""
        if artifact.format == Format.ONNX:
            with Worker(
                artifact.name, WorkerSpec(artifact.format, artifact.path, precision=artifact.precision)
            ) as worker:
                return worker.run(inputs, chunk)
        devices = backend_for(artifact.format).devices
        device = "cpu" if "cpu" in devices else devices[0]
        options = OpenOptions(artifact.path, torch.get_num_threads(), device, artifact.precision)
        runtime = open_runtime(opener_of(artifact.format), options)
        return in_chunks(runtime, inputs, chunk)

    def baseline(self, dense: Artifact) -> Accuracy | None:
        """The accuracy before anything is done; None without labels. Raises `DataError`
        for labels that cannot belong to this model."""
        inputs, target, chunk = self._fitting(dense)
        outputs = self.outputs_of_module(dense, inputs, chunk)
        if target is None or not outputs:
            return None
        logits = torch.from_numpy(outputs[0])
        for part in (self._run.data.train, self._run.data.evaluation):
            if part is not None:
                check_labels(part, logits)
        if self._part is not None:
            check_batch(self._part.name, target, logits)  # these were read, whatever the data is
        metric, value = score(logits, target)
        return Accuracy(metric, value, {}, len(target))

    def of_module(self, artifact: Artifact) -> Parity:
        """The accuracy of a new module of the trunk."""
        inputs, target, chunk = self._fitting(artifact)
        outputs = self.outputs_of_module(artifact, inputs, chunk)  # it must run, labels or not
        if target is None or not outputs:
            return Parity()
        return Parity(metric=score(torch.from_numpy(outputs[0]), target)[1])

    def of_export(self, artifact: Artifact, source: Artifact) -> Parity | None:
        """An export against what it was made from: the module, or the file that came
        in. None for what cannot be run here."""
        if not backend_for(artifact.format).can_run:
            return None
        inputs, target, chunk = self._fitting(artifact)
        wanted = self._reference_outputs(source, inputs, chunk)
        got = _floating(self._outputs_of_file(artifact, inputs, chunk))
        result = compare(wanted, got)
        metric = score(torch.from_numpy(got[0]), target)[1] if target is not None and result.finite else None
        return Parity(**vars(result), metric=metric)

    def _reference_outputs(self, source: Artifact, inputs: Arrays, chunk: int) -> Arrays:
        if source.format == Format.MODULE:
            return self.outputs_of_module(source, inputs, chunk)
        return _floating(self._outputs_of_file(source, inputs, chunk))

    def judge(self, artifact: Artifact, parity: Parity | None) -> None:
        """Raises `PassFailed` when an export is out of tolerance."""
        if parity is None or (parity.max_error is None and parity.finite is None):
            return
        fields = {key: value for key, value in vars(parity).items() if key != "metric"}
        fields["max_error"] = float("inf") if parity.max_error is None else parity.max_error
        tolerance = getattr(self._config, artifact.precision, None)
        if not isinstance(tolerance, recipe.Tolerance):
            known = ", ".join(name for name in recipe.Parity.model_fields if name != "samples")
            raise PassFailed(
                f"{artifact.name} is in {artifact.precision}, for which there is no tolerance",
                f"a pass gives one of {known}",
            )
        judge_parity(ParityResult(**fields), tolerance, artifact.name)


def verdict(record: RunRecord, max_drop: float | None) -> VerdictFailed | None:
    """Whether the last module of the trunk and every export keep the accuracy; names
    the pass that lost it."""
    if max_drop is None:
        return None
    accuracy = record.accuracy
    if accuracy is None:
        return VerdictFailed(
            "--max-drop was given, but there are no labels to measure accuracy with",
            "give --data with labels",
        )
    dense = accuracy.baseline
    values = [(entry, accuracy.after[entry.name]) for entry in record.passes if entry.name in accuracy.after]
    trunk = [(entry.name, value) for entry, value in values if entry.role == "trunk"]
    last = trunk[-1][1] if trunk else dense
    if dense - last > max_drop:
        levels = [dense, *(value for _, value in trunk)]
        worst = max(range(len(trunk)), key=lambda i: levels[i] - levels[i + 1])
        return VerdictFailed(
            f"the compressed module lost {dense - last:.2f} points of {accuracy.metric} (allowed:"
            f" {max_drop:g}); {trunk[worst][0]} lost {levels[worst] - levels[worst + 1]:.2f}",
            "prune less, or fine-tune or distill for more epochs",
        )
    for entry, value in values:
        if entry.role == "leaf" and dense - value > max_drop:
            return VerdictFailed(
                f"{entry.name} lost {dense - value:.2f} points of {accuracy.metric} against the dense module"
                f" (allowed: {max_drop:g})",
                "quantize with more samples or calibration: percentile, or leave it out",
            )
    return None
