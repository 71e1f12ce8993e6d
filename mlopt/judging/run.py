"""The gate: candidate and baseline are run beside each other, and judged by a
policy."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mlopt.artifact import Artifact, TensorSpec
from mlopt.data.sets import DataSet, Part, load_data
from mlopt.errors import BackendMissing, MloptError, UsageError
from mlopt.judging.outputs import Answers, BaselineFailed, WrongOutputs, check, parity_rows, samples_for_both
from mlopt.judging.policy import Policy, effective, log_limit
from mlopt.judging.rows import (
    comparison,
    median_s,
    memory_row,
    sampled_row,
    size_and_accuracy_rows,
    throttled,
)
from mlopt.judging.sides import Opening, Side, manifest_entry, pair, resolve, side_record, write_manifest
from mlopt.judging.stored import PairResult, Terms, against_numbers, measure_alone
from mlopt.judging.verdict import Verdict
from mlopt.measuring.duet import Duet, Question, Stopping, run_duet
from mlopt.measuring.environment import fingerprint
from mlopt.measuring.run import most_fixed, same_signature, workload_for
from mlopt.measuring.samples import SampleFile, forget_samples
from mlopt.measuring.sampling import Contender, Sampler, Workload
from mlopt.model.trust import Trust
from mlopt.records.gate import Manifest
from mlopt.run.store import Store
from mlopt.system.progress import Say, silent


@dataclass(frozen=True)
class Timing:
    """What is timed: baseline and candidate on each workload. `families`: the questions
    of the whole gate."""

    contenders: list[Contender]
    workloads: list[Workload]
    families: int


class Gate:
    """One run of the gate.

    `given`: the inputs of models that do not know their own. `data`: labels, where
    accuracy is judged. `out`: a directory for every sample, written as it comes; None
    keeps none. `say` is given lines of progress. `store`: where runs keep what they
    started from; the user's without it.
    """

    def __init__(
        self,
        policy: Policy,
        trust: Trust,
        given: tuple[TensorSpec, ...] = (),
        data: str | DataSet | None = None,
        out: Path | None = None,
        say: Say = silent,
        store: Store | None = None,
    ) -> None:
        self._policy, self._given, self._data, self._out, self._say = policy, given, data, out, say
        self._store = store
        self._terms = Terms(policy, trust)

    def judge(self, candidate: str, baseline: str, only: str | None = None) -> Verdict:
        """The verdict; `only`: of one artifact of a run directory.

        Raises `UsageError` for what cannot be compared at all: nothing there, other
        inputs, no labels.
        """
        if self._policy.device == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                "--device cuda was asked for, and PyTorch finds no GPU here", "leave --device out"
            )
        if self._out is not None:
            forget_samples(self._out)
        with tempfile.TemporaryDirectory(prefix="mlopt-gate-") as scratch:
            opening = Opening(self._terms.trust, self._given, Path(scratch), self._store)
            left, right = resolve(candidate, opening), resolve(baseline, opening, candidate)
            for side in left.sides:
                if side.artifact is None:
                    raise UsageError(
                        f"{side.label}: {side.missing}",
                        "the candidate has to be here: its numbers are not enough",
                    )
            pairs, notes = pair(left.sides, right.sides, only)
            part = self._evaluation(pairs)
            families = max(1, len(pairs) * len(self._policy.batch) * max(1, len(self._questions())))
            results = []
            for number, (new, old) in enumerate(pairs, 1):
                self._say(f"[{number}/{len(pairs)}] {new.label} against {old.label} ...", "working")
                results.append(self._pair(new, old, part, families))
        return Verdict(
            kind="stored" if any(result.kind == "stored" for result in results) else "interleaved",
            rows=tuple(row for result in results for row in result.rows),
            candidate=side_record(candidate, [new for new, _ in pairs]),
            baseline=side_record(baseline, [old for _, old in pairs]),
            policy=self._policy,
            conditions=self._terms.conditions,
            environment=fingerprint(),
            created=_now(),
            commit=commit(),
            notes=(*left.notes, *(note for note in right.notes if note not in left.notes), *notes),
            comparisons=tuple(found for result in results for found in result.comparisons),
            reasons=tuple(reason for result in results for reason in result.reasons),
        )

    def save_baseline(self, model: str, path: Path) -> list[str]:
        """Measure a model alone and write the manifest that makes it a baseline;
        returns the names in it."""
        entries = []
        with tempfile.TemporaryDirectory(prefix="mlopt-gate-") as scratch:
            found = resolve(model, Opening(self._terms.trust, self._given, Path(scratch), self._store))
            for side in found.sides:
                if side.artifact is None:
                    raise UsageError(
                        f"{side.label}: {side.missing}", "a baseline has to be here when it is written down"
                    )
                if Path(scratch) in side.artifact.root.parents and not Path(model).is_dir():
                    raise UsageError(
                        f"{model} is rebuilt each time it is read",
                        "export it, and save the export as baseline: mlopt export",
                    )
                self._say(f"measuring {side.label} ...", "working")
                numbers = measure_alone(side, self._terms)
                kept = replace(side, artifact=_at_home(side.artifact, model, Path(scratch)))
                entries.append(manifest_entry(kept, path, numbers))
            write_manifest(
                path,
                Manifest(created=_now(), commit=commit(), environment=fingerprint(), entries=tuple(entries)),
            )
        return [entry.name for entry in entries]

    def _questions(self, baseline_s: dict[float, float] | None = None) -> list[Question]:
        """What is asked of every workload. `baseline_s`: seconds of the baseline at a
        percentile, for floors."""
        policy, out = self._policy, []
        for name, part, guard in (("latency", policy.latency, False), ("tail", policy.tail, True)):
            if part is not None:
                limit = effective(part.tolerance, part.floor_s, (baseline_s or {}).get(part.percentile, 0.0))
                out.append(
                    Question(
                        name,
                        part.percentile,
                        log_limit(limit),
                        guard and not getattr(part, "required", False),
                    )
                )
        if policy.throughput is not None:
            # A drop of samples a second to 1 - t is a rise of the time of one to 1 / (1
            # - t).
            out.append(Question("throughput", None, -math.log1p(-min(policy.throughput.tolerance, 0.99))))
        return out

    def _evaluation(self, pairs: list[tuple[Side, Side]]) -> Part | None:
        """The labelled data, if accuracy is judged or data was given."""
        first = next((side.artifact for both in pairs for side in both if side.artifact is not None), None)
        data = (
            self._data
            if isinstance(self._data, DataSet)
            else load_data(self._data, first.inputs if first else ())
        )
        part = data.evaluation or data.any_part()
        recorded = all(side.accuracy is not None for both in pairs for side in both)
        if self._policy.accuracy is not None and part is None and not recorded:
            raise UsageError(
                "accuracy is judged, but there are no labels to measure it with",
                "give --data, or leave accuracy out of the policy",
            )
        return part

    def _pair(self, new: Side, old: Side, part: Part | None, families: int) -> PairResult:
        """One candidate and its baseline: outputs first, then the clock."""
        if old.artifact is None:
            return against_numbers(new, old, old.missing, self._terms)
        assert new.artifact is not None
        given = same_signature([old.artifact, new.artifact])
        contenders = [
            Contender(f"{name} {side.label}", artifact, self._terms.trust.for_model(artifact.name))
            for name, side, artifact in zip(("baseline", "candidate"), (old, new), given, strict=True)
        ]
        workloads = [workload_for(most_fixed(given), batch) for batch in self._batches(given, (old, new))]
        try:
            samples = samples_for_both(workloads[0], part, (given[0], given[1]))
            answers = check(contenders[0], contenders[1], samples, self._terms.conditions)
        except BaselineFailed as failed:
            if old.stored is not None:
                return against_numbers(new, old, failed.error.message, self._terms)
            return PairResult.of_reason("INCOMPARABLE", f"the baseline cannot be run: {failed.error.message}")
        except WrongOutputs as wrong:
            return PairResult.of_reason("INVALID", f"{new.label}: {wrong}")
        except MloptError as error:
            if error.exit_code == BackendMissing.exit_code:
                raise
            return PairResult.of_reason("INVALID", f"{new.label} cannot be run: {error.message}")
        return self._judged(new, old, Timing(contenders, workloads, families), answers)

    def _batches(self, given: list[Artifact], sides: tuple[Side, Side]) -> tuple[int, ...]:
        """The batch sizes of the policy, or the fixed one where none was asked for.
        Raises `UsageError` where they differ."""
        batches = self._policy.batch
        for artifact, side in zip(given, sides, strict=True):
            fixed = artifact.fixed_batch
            if fixed is not None and self._policy.batch == (1,):
                batches = (fixed,)  # none was asked for
            elif fixed is not None and set(batches) != {fixed}:
                raise UsageError(
                    f"{side.label}: its batch is fixed at {fixed}", f"judge it with --batch {fixed}"
                )
        return batches

    def _judged(self, new: Side, old: Side, timing: Timing, answers: Answers) -> PairResult:
        """Rows of what is counted, and, unless the outputs are wrong, of what is
        timed."""
        policy, workloads = self._policy, timing.workloads
        rows = parity_rows(answers.parity, policy.parity, new.label) + size_and_accuracy_rows(
            new, old, answers, policy
        )
        if any(row.verdict == "INVALID" for row in rows):
            return PairResult(tuple(rows))
        try:
            duet = self._timed(new, timing)
        except MloptError as error:
            if isinstance(error, UsageError) or error.exit_code == BackendMissing.exit_code:
                raise
            stopped = PairResult.of_reason(
                "INCOMPARABLE", f"the baseline stopped while it was timed: {error.message}"
            )
            return replace(stopped, rows=tuple(rows))
        if duet.error is not None:
            stopped = PairResult.of_reason(
                "INVALID", f"{new.label} stopped while it was timed: {duet.error.message}"
            )
            return replace(stopped, rows=tuple(rows))
        rows += [
            sampled_row(o, new.label, workloads[o.workload].batch, duet, policy.anomaly)
            for o in duet.outcomes
        ]
        if policy.memory is not None:
            rows.append(memory_row(new.label, duet, policy.memory))
        measured = zip(workloads, duet.generations, strict=True)
        found = [
            comparison(new, old, workload, column, self._terms.conditions) for workload, column in measured
        ]
        return PairResult(tuple(rows), tuple(throttled(duet)), comparisons=tuple(found))

    def _timed(self, new: Side, timing: Timing) -> Duet:
        """Both against each other until the verdict is clear. Raises what the baseline
        raises."""
        policy = self._policy
        with ExitStack() as stack:
            keep = stack.enter_context(SampleFile(self._out, new.label)) if self._out is not None else None
            sampler = stack.enter_context(
                Sampler(timing.contenders, timing.workloads, self._terms.conditions)
            )
            questions = [self._questions(seconds) for seconds in _baseline_seconds(sampler, policy)]
            stopping = Stopping(
                policy.budget_s * len(timing.workloads), 1 - policy.confidence, timing.families
            )
            return run_duet(sampler, questions, stopping, keep or (lambda generations: None))


def _at_home(artifact: Artifact, model: str, scratch: Path) -> Artifact:
    """A bundle is copied to be read; the manifest must name where it really is."""
    if scratch not in artifact.root.parents:
        return artifact
    home = Path(model)
    return replace(artifact, root=home / "model" if (home / "run.json").is_file() else home)


def _baseline_seconds(sampler: Sampler, policy: Policy) -> list[dict[float, float]]:
    """Seconds of the baseline at the percentiles that have floors, for each workload,
    from one generation that no verdict rests on."""
    parts = [part for part in (policy.latency, policy.tail) if part is not None and part.floor_s > 0]
    generations = sampler.generation() if parts else []
    if not generations:
        return [{} for _ in sampler.workloads]
    return [{part.percentile: median_s([made], 0, part.percentile) for part in parts} for made in generations]


def commit() -> str | None:
    """The commit that is judged: what CI says, else what git says of the working
    directory."""
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
