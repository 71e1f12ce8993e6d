"""The gate: candidate and baseline are run beside each other, and judged by a policy."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mlopt.artifact import Artifact
from mlopt.data.sets import DataSet, Part, load_data
from mlopt.errors import BackendMissing, MloptError, UsageError
from mlopt.judging.outputs import Answers, BaselineFailed, WrongOutputs, check, parity_rows
from mlopt.judging.policy import Policy, effective, log_limit
from mlopt.judging.rows import drawn, memory_row, sampled_row, still_rows, throttled, typical
from mlopt.judging.sides import Side, pair, resolve, write_manifest
from mlopt.judging.verdict import Row, Verdict, Word
from mlopt.measuring.duet import Question, run_duet
from mlopt.measuring.environment import fingerprint
from mlopt.measuring.protocol import Conditions
from mlopt.measuring.rows import bench_rows
from mlopt.measuring.run import most_fixed, same_signature, timed_shape
from mlopt.measuring.samples import SampleFile, forget_samples
from mlopt.measuring.sampling import Entry, Sampler, Shape
from mlopt.measuring.statistics import Ratio
from mlopt.model.inputs import parse_spec
from mlopt.model.trust import Trust
from mlopt.records.files import differences_between

STORED_S = 5.0
Say = Callable[[str], None]
Reason = tuple[Word, str]


class Gate:
    """One run of the gate. `out`: a directory for every sample, written as it comes; None keeps none."""

    def __init__(
        self, policy: Policy, trust: Trust, input: tuple[str, ...] = (), data: str | DataSet | None = None, out: Path | None = None,
        say: Say = lambda line: None, seed: int = 0,
    ) -> None:  # fmt: skip
        self._policy, self._trust, self._say, self._seed, self._out = policy, trust, say, seed, out
        self._given = tuple(parse_spec(text, i) for i, text in enumerate(input))
        self._data = data
        self._conditions = Conditions(policy.threads, policy.device, policy.copies)
        self._comparisons: list[dict[str, Any]] = []

    def judge(self, candidate: str, baseline: str, only: str | None = None) -> Verdict:
        """The verdict. Raises `UsageError` for what cannot be compared at all: nothing there, other inputs, no labels."""
        if self._policy.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("--device cuda was asked for, and PyTorch finds no GPU here", "leave --device out")
        if self._out is not None:
            forget_samples(self._out)
        with tempfile.TemporaryDirectory(prefix="mlopt-gate-") as scratch:
            left = resolve(candidate, self._trust, self._given, Path(scratch))
            right = resolve(baseline, self._trust, self._given, Path(scratch), candidate)
            for side in left.sides:
                if side.artifact is None:
                    raise UsageError(f"{side.label}: {side.missing}", "the candidate has to be here: its numbers are not enough")
            pairs, notes = pair(left.sides, right.sides, only)
            part = self._evaluation(pairs)
            families = max(1, len(pairs) * len(self._policy.batch) * max(1, len(self._questions())))
            rows: list[Row] = []
            reasons: list[Reason] = []
            kinds = set()
            for number, (new, old) in enumerate(pairs, 1):
                self._say(f"[{number}/{len(pairs)}] {new.label} against {old.label} ...")
                made, why, kind = self._pair(new, old, part, families)
                rows, reasons = rows + made, reasons + why
                kinds.add(kind)
        about = self._about(candidate, baseline, [new for new, _ in pairs], [old for _, old in pairs])
        found = [*left.notes, *(note for note in right.notes if note not in left.notes), *notes]
        return Verdict("stored" if "stored" in kinds else "interleaved", rows, found, about, self._comparisons, reasons)

    def save_baseline(self, model: str, path: Path) -> list[str]:
        """Measure a model alone and write the manifest that makes it a baseline; returns the names in it."""
        with tempfile.TemporaryDirectory(prefix="mlopt-gate-") as scratch:
            found = resolve(model, self._trust, self._given, Path(scratch))
            numbers = {}
            for side in found.sides:
                if side.artifact is None:
                    raise UsageError(f"{side.label}: {side.missing}", "a baseline has to be here when it is written down")
                if Path(scratch) in side.artifact.root.parents and not Path(model).is_dir():
                    raise UsageError(f"{model} is rebuilt each time it is read", "export it, and save the export as baseline: mlopt export")
                self._say(f"measuring {side.label} ...")
                numbers[side.label] = self._alone(side)
            kept = [replace(side, artifact=self._at_home(side, model, Path(scratch))) for side in found.sides]
            write_manifest(path, kept, numbers, fingerprint(), created=_now(), commit=commit())
        return [side.label for side in found.sides]

    def _at_home(self, side: Side, model: str, scratch: Path) -> Artifact:
        """A bundle is copied to be read; the manifest must name where it really is."""
        assert side.artifact is not None
        if scratch not in side.artifact.root.parents:
            return side.artifact
        home = Path(model)
        return replace(side.artifact, root=home / "model" if (home / "run.json").is_file() else home)

    def _questions(self, baseline_s: dict[float, float] | None = None) -> list[Question]:
        """What is asked of every shape. `baseline_s`: seconds of the baseline at a percentile, for floors."""
        policy, out = self._policy, []
        for name, part, guard in (("latency", policy.latency, False), ("tail", policy.tail, True)):
            if part is not None:
                limit = effective(part.tolerance, part.floor_s, (baseline_s or {}).get(part.percentile, 0.0))
                out.append(Question(name, part.percentile, log_limit(limit), guard and not getattr(part, "required", False)))
        if policy.throughput is not None:
            # A drop of samples a second to 1 - t is a rise of the time of one to 1 / (1 - t).
            out.append(Question("throughput", None, -math.log1p(-min(policy.throughput.tolerance, 0.99))))
        return out

    def _evaluation(self, pairs: list[tuple[Side, Side]]) -> Part | None:
        """The labelled data, if accuracy is judged or data was given."""
        first = next((side.artifact for both in pairs for side in both if side.artifact is not None), None)
        data = self._data if isinstance(self._data, DataSet) else load_data(self._data, first.inputs if first else ())
        part = data.evaluation or data.any_part()
        recorded = all(side.accuracy is not None for both in pairs for side in both)
        if self._policy.accuracy is not None and part is None and not recorded:
            raise UsageError("accuracy is judged, but there are no labels to measure it with", "give --data, or leave accuracy out of the policy")
        return part

    def _pair(self, new: Side, old: Side, part: Part | None, families: int) -> tuple[list[Row], list[Reason], str]:
        """Rows of one candidate and its baseline, a verdict that belongs to no row, and how the baseline was there."""
        if old.artifact is None:
            return *self._against_numbers(new, old, old.missing), "stored"
        assert new.artifact is not None
        given = same_signature([old.artifact, new.artifact])
        batches = self._policy.batch
        for artifact, side in zip(given, (old, new), strict=True):
            fixed = artifact.fixed_batch
            if fixed is not None and self._policy.batch == (1,):
                batches = (fixed,)  # none was asked for
            elif fixed is not None and set(batches) != {fixed}:
                raise UsageError(f"{side.label}: its batch is fixed at {fixed}", f"judge it with --batch {fixed}")
        entries = [Entry(f"{name} {side.label}", artifact, self._trust.for_model(artifact.name))
                   for name, side, artifact in zip(("baseline", "candidate"), (old, new), given, strict=True)]  # fmt: skip
        shapes = [timed_shape(most_fixed(given), batch) for batch in batches]
        try:
            answers = check(entries[0], entries[1], shapes[0], part, self._conditions)
        except BaselineFailed as failed:
            if old.stored is not None:
                return *self._against_numbers(new, old, failed.error.message), "stored"
            return [], [("INCOMPARABLE", f"the baseline cannot be run: {failed.error.message}")], "interleaved"
        except WrongOutputs as wrong:
            return [], [("INVALID", f"{new.label}: {wrong}")], "interleaved"
        except MloptError as error:
            if error.exit_code == BackendMissing.exit_code:
                raise
            return [], [("INVALID", f"{new.label} cannot be run: {error.message}")], "interleaved"
        return *self._timed(new, old, entries, shapes, answers, families), "interleaved"

    def _timed(
        self, new: Side, old: Side, entries: list[Entry], shapes: list[Shape], answers: Answers, families: int
    ) -> tuple[list[Row], list[Reason]]:
        policy = self._policy
        rows = parity_rows(answers.parity, policy.parity, new.label) + still_rows(new, old, answers, policy)
        if any(row.verdict == "INVALID" for row in rows):
            return rows, []
        try:
            with ExitStack() as stack:
                keep = stack.enter_context(SampleFile(self._out, new.label)) if self._out is not None else None
                sampler = stack.enter_context(Sampler(entries, shapes, self._conditions, self._seed))
                questions = [self._questions(rough) for rough in _rough(sampler, policy)]
                budget = policy.budget_s * len(shapes)
                duet = run_duet(sampler, questions, budget, 1 - policy.confidence, families, keep or (lambda epochs: None))
        except MloptError as error:
            if isinstance(error, UsageError) or error.exit_code == BackendMissing.exit_code:
                raise
            return rows, [("INCOMPARABLE", f"the baseline stopped while it was timed: {error.message}")]
        if duet.error is not None:
            return rows, [("INVALID", f"{new.label} stopped while it was timed: {duet.error.message}")]
        rows += [sampled_row(o, new.label, shapes[o.shape].batch, duet, policy.anomaly) for o in duet.outcomes]
        if policy.memory is not None:
            rows.append(memory_row(new.label, duet, policy.memory))
        self._comparisons += [drawn(new, old, shape, column, self._conditions) for shape, column in zip(shapes, duet.epochs, strict=True)]
        return rows, throttled(duet)

    def _alone(self, side: Side) -> list[dict[str, Any]]:
        """Rows as in `bench` of one artifact by itself."""
        assert side.artifact is not None
        fixed = side.artifact.fixed_batch
        batches = (fixed,) if fixed is not None else self._policy.batch
        (given,) = same_signature([side.artifact])
        shapes = [timed_shape(given, batch) for batch in batches]
        with Sampler([Entry(side.label, given, self._trust.for_model(given.name))], shapes, self._conditions, self._seed) as sampler:
            epochs = sampler.collect(STORED_S)
        return [row for shape, column in zip(shapes, epochs, strict=True) for row in bench_rows([side.label], shape.batch, column, self._conditions)]

    def _against_numbers(self, new: Side, old: Side, why: str) -> tuple[list[Row], list[Reason]]:
        """Only numbers are left of the baseline: they can say FAIL past a wide limit on the same machine, else INCOMPARABLE, and never PASS."""
        stored = old.stored or {"environment": {}, "numbers": []}
        other = differences_between(stored["environment"], fingerprint())
        if other:
            told = f"{old.label} cannot be run here ({why}), and its numbers are from another machine: {'; '.join(other[:3])}"
            return [], [("INCOMPARABLE", told)]
        rows = []
        for now in self._alone(new):
            same = ("batch", "threads", "device", "copies")
            was = next((row for row in stored["numbers"] if all(row.get(k, now[k]) == now[k] for k in same) and row.get("p10_s")), None)
            if was is None:
                continue
            ratio = now["p10_s"] / was["p10_s"]
            word: Word = "FAIL" if ratio > 1 + self._policy.stored_limit else "INCOMPARABLE"
            note = f"stored numbers; {why}" if word == "FAIL" else f"stored numbers cannot say PASS; {why}"
            rows.append(Row("latency", new.label, "s", was["p10_s"], now["p10_s"], self._policy.stored_limit, word, now["batch"],
                            Ratio(ratio, ratio, ratio, 0.0), STORED_S, note))  # fmt: skip
        return rows, [] if rows else [("INCOMPARABLE", f"{old.label} cannot be run here ({why}), and it left no numbers that fit")]

    def _about(self, candidate: str, baseline: str, new: list[Side], old: list[Side]) -> dict[str, Any]:
        """What stands beside the rows. Artifacts of both sides are in the order of the pairs."""
        return {
            "candidate": {"given": candidate, "artifacts": [side.to_json() for side in new]},
            "baseline": {"given": baseline, "artifacts": [side.to_json() for side in old]},
            "policy": self._policy.model_dump(mode="json"),
            "conditions": self._conditions.to_json(),
            "environment": fingerprint(),
            "created": _now(),
            "commit": commit(),
        }


def _rough(sampler: Sampler, policy: Policy) -> list[dict[float, float]]:
    """Seconds of the baseline at the percentiles that have floors, for each shape, from one epoch that no verdict rests on."""
    parts = [part for part in (policy.latency, policy.tail) if part is not None and part.floor_s > 0]
    epochs = sampler.epoch() if parts else []
    if not epochs:
        return [{} for _ in sampler.shapes]
    return [{part.percentile: typical([epoch], 0, part.percentile) for part in parts} for epoch in epochs]


def commit() -> str | None:
    """The commit that is judged: what CI says, else what git says of the working directory."""
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
