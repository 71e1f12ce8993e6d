"""What the pipeline holds against every pass: parity for exports, accuracy for all, and the verdict on accuracy at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlopt.artifact import Artifact, Format, sha256_file
from mlopt.checking.accuracy import score
from mlopt.checking.parity import ParityResult, compare
from mlopt.checking.parity import judge as judge_parity
from mlopt.data.sets import Part, check_batch, check_labels
from mlopt.errors import VerdictFailed
from mlopt.model import bundle
from mlopt.model.outputs import first_tensors
from mlopt.passes.context import RunContext
from mlopt.recipe.order import Planned
from mlopt.recipe.schema import Parity
from mlopt.runtimes.base import OpenOptions
from mlopt.runtimes.opening import open_runtime, opener_of
from mlopt.runtimes.remote import Worker, WorkerSpec

CHUNK = 64
MAX_SAMPLES, MAX_BYTES = 10_000, 256 * 2**20
"""How much of the evaluation part is used at most, for it is held in memory; the record says how many samples were."""


class Checker:
    """Knows the evaluation samples of a run, and what the module and the exports make of them."""

    def __init__(self, run: RunContext, config: Parity, record: dict[str, Any]) -> None:
        self._run, self._config, self._record = run, config, record
        self._part: Part | None = run.data.evaluation or run.data.any_part()
        self._samples: tuple[list[NDArray[Any]], torch.Tensor | None] | None = None
        self._reference: tuple[str, list[NDArray[Any]]] | None = None
        self._by_pass: dict[str, tuple[float, bool]] = {}

    def _inputs(self, artifact: Artifact) -> tuple[list[NDArray[Any]], torch.Tensor | None]:
        """Evaluation inputs as arrays, and their labels."""
        if self._samples is None:
            if self._part is None:
                tensors, target = self._run.samples(artifact, self._config.samples)
            else:
                first, _ = self._part.take(1)
                each = sum(tensor.numel() * tensor.element_size() for tensor in first)
                tensors, target = self._part.take(max(1, min(MAX_SAMPLES, MAX_BYTES // max(1, each))))
            self._samples = [tensor.numpy() for tensor in tensors], target
        return self._samples

    def _fitting(self, artifact: Artifact) -> tuple[list[NDArray[Any]], torch.Tensor | None, int]:
        """The same, cut to whole batches where the artifact's batch is fixed: (inputs, labels, chunk)."""
        inputs, target = self._inputs(artifact)
        fixed = artifact.fixed_batch
        if fixed is None:
            return inputs, target, CHUNK
        whole = max(fixed, len(inputs[0]) // fixed * fixed)
        return [array[:whole] for array in inputs], None if target is None else target[:whole], fixed

    def outputs_of_module(self, artifact: Artifact, inputs: list[NDArray[Any]], chunk: int) -> list[NDArray[Any]]:
        """What a bundle computes, in evaluation mode."""
        module, _ = bundle.read(artifact.path, self._run.trust)
        module.eval()
        parts: list[list[torch.Tensor]] = []
        with torch.inference_mode():
            for at in range(0, len(inputs[0]), chunk):
                parts.append(first_tensors(module(*(torch.from_numpy(array[at : at + chunk]) for array in inputs))))
        return [torch.cat(column).numpy() if column[0].ndim else column[0].numpy() for column in zip(*parts, strict=True)]

    def baseline(self, dense: Artifact) -> None:
        """The accuracy before anything is done; also refuses labels that cannot belong to this model."""
        weights, size = self._sizes(dense)
        self._record["compression"]["params"] = {"before": weights, "after": weights}
        self._record["compression"]["bytes"] = {"before": size, "after": size}
        inputs, target, chunk = self._fitting(dense)
        outputs = self.outputs_of_module(dense, inputs, chunk)
        if target is None or not outputs:
            self._record["accuracy"] = None
            return
        logits = torch.from_numpy(outputs[0])
        for part in (self._run.data.train, self._run.data.evaluation):
            if part is not None:
                check_labels(part, logits)
        if self._part is not None:
            check_batch(self._part.name, target, logits)  # these were read, whatever the data is
        metric, value = score(logits, target)
        self._record["accuracy"] = {"metric": metric, "baseline": value, "after": {}, "samples": len(target)}

    def new_baseline(self, run: RunContext, entry: dict[str, Any]) -> None:
        """The module that was just trained becomes what the others are compared with."""
        self._run = run
        metric = entry["parity"]["metric"] if entry["parity"] else None
        if metric is not None and self._record["accuracy"] is not None:
            self._record["accuracy"]["baseline"] = metric

    def parity(self, step: Planned, artifact: Artifact, module: Artifact) -> dict[str, Any] | None:
        """An export against the module it came from, or the accuracy of a new module. None for what cannot run here."""
        if artifact.format is Format.TENSORRT:
            return None
        inputs, target, chunk = self._fitting(artifact)
        if artifact.format is Format.MODULE:
            outputs = self.outputs_of_module(artifact, inputs, chunk)
            self._reference = None
            return {"metric": score(torch.from_numpy(outputs[0]), target)[1]} if target is not None else {"metric": None}
        if self._reference is None or self._reference[0] != f"{module.digest}:{chunk}":
            self._reference = f"{module.digest}:{chunk}", self.outputs_of_module(module, inputs, chunk)
        wanted = self._reference[1]
        if artifact.format is Format.ONNX:  # in a process of its own: a graph may crash the runtime
            with Worker(artifact.name, WorkerSpec(artifact.format, artifact.path, precision=artifact.precision)) as worker:
                got = worker.run(inputs, chunk)
        else:
            threads = torch.get_num_threads()
            runtime = open_runtime(opener_of(artifact.format), OpenOptions(artifact.path, threads))
            parts = [runtime([array[at : at + chunk] for array in inputs]) for at in range(0, len(inputs[0]), chunk)]
            got = [np.concatenate(column) if column[0].ndim else column[0] for column in zip(*parts, strict=True)]
        got = [array for array in got if array.dtype.kind == "f"]
        result = compare(wanted, got)
        metric = score(torch.from_numpy(got[0]), target)[1] if target is not None and result.finite else None
        return {**result.to_json(), "metric": metric}

    def judge(self, step: Planned, artifact: Artifact, parity: dict[str, Any] | None) -> None:
        """Raises `PassFailed` when an export is out of tolerance."""
        if parity is None or artifact.format is Format.MODULE:
            return
        fields = {key: value for key, value in parity.items() if key != "metric"}
        judge_parity(ParityResult(**fields), getattr(self._config, artifact.precision), artifact.name)

    def after(self, step: Planned, artifact: Artifact, entry: dict[str, Any], trunk: bool) -> None:
        """Write what is known of a pass's result into the record."""
        parity = entry.pop("parity")
        metric = parity["metric"] if parity else None
        if metric is not None and self._record["accuracy"] is not None:
            self._by_pass[step.name] = (metric, trunk)
            self._record["accuracy"]["after"][step.name] = metric
        if trunk:
            self._count(entry, artifact)
            return
        main = artifact.path.stat().st_size if len(list(artifact.root.iterdir())) == 1 else artifact.bytes
        self._record["artifacts"].append(
            {
                "name": artifact.name,
                "format": str(artifact.format),
                "precision": artifact.precision,
                "target": artifact.target or None,
                "path": f"exports/{artifact.main}",
                "bytes": main,
                "sha256": sha256_file(artifact.path),
                "parity": parity,
            }
        )
        if artifact.format is Format.TENSORRT:
            self._record["not_measured"].append(f"{artifact.name}: built, not run: mlopt builds engines and cannot run them yet")

    def _count(self, entry: dict[str, Any], artifact: Artifact) -> None:
        """Keep `compression` up to date: the first pass's before, the last pass's after."""
        compression = self._record["compression"]
        metrics = entry["metrics"]
        for key in ("macs", "channels"):
            if "before" in metrics:
                row = compression[key]
                row["before"] = metrics["before"][key] if row["before"] is None else row["before"]
                row["after"] = metrics["after"][key]
        compression["params"]["after"], compression["bytes"]["after"] = self._sizes(artifact)

    def _sizes(self, artifact: Artifact) -> tuple[int, int]:
        """(parameters, bytes of the weights) of a bundle."""
        module, _ = bundle.read(artifact.path, self._run.trust)
        return sum(p.numel() for p in module.parameters()), (artifact.root / "weights.safetensors").stat().st_size

    def shown(self, name: str) -> str:
        """The accuracy after a pass, for the progress line."""
        if name not in self._by_pass:
            return ""
        accuracy = self._record["accuracy"]
        return f"{accuracy['metric']} {self._by_pass[name][0]:.2f}% (dense {accuracy['baseline']:.2f}%)"

    def verdict(self, max_drop: float | None) -> VerdictFailed | None:
        """Whether the last trunk module and every export keep the accuracy; names the pass that lost it."""
        if max_drop is None:
            return None
        accuracy = self._record["accuracy"]
        if accuracy is None:
            return VerdictFailed("--max-drop was given, but there are no labels to measure accuracy with", "give --data with labels")
        dense = accuracy["baseline"]
        trunk = [(name, value) for name, (value, is_trunk) in self._by_pass.items() if is_trunk]
        last = trunk[-1][1] if trunk else dense
        if dense - last > max_drop:
            values = [dense, *(value for _, value in trunk)]
            worst = max(range(len(trunk)), key=lambda i: values[i] - values[i + 1])
            return VerdictFailed(
                f"the compressed module lost {dense - last:.2f} points of {accuracy['metric']} (allowed: {max_drop:g}); "
                f"{trunk[worst][0]} lost {values[worst] - values[worst + 1]:.2f}",
                "prune less, or fine-tune or distill for more epochs",
            )
        for name, (value, is_trunk) in self._by_pass.items():
            if not is_trunk and dense - value > max_drop:
                return VerdictFailed(
                    f"{name} lost {dense - value:.2f} points of {accuracy['metric']} against the dense module (allowed: {max_drop:g})",
                    "quantize with more samples or calibration: percentile, or leave it out",
                )
        return None
