"""One pass of a run: looked up in the store, or made, checked and published."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mlopt import catalog
from mlopt.artifact import Artifact, Format, files_of, sha256_file
from mlopt.errors import Interrupted, MloptError, PassFailed, UsageError, first_line
from mlopt.model.bundle import sizes
from mlopt.passes.base import Pass, PassResult
from mlopt.recipe.configs import MODULE
from mlopt.recipe.order import Step
from mlopt.recipe.schema import Recipe
from mlopt.records.edge import Json, from_json, plain, to_json
from mlopt.records.machine import Machine
from mlopt.records.run import ArtifactEntry, Finding, Parity, PassEntry, PassStatus
from mlopt.run.directory import PLAN, RunDirectory
from mlopt.run.intake import library_errors
from mlopt.run.key import ActionKey, installed_versions
from mlopt.run.state import State
from mlopt.run.store import Store, StoreUnwritable
from mlopt.system.processes import check_stop
from mlopt.system.progress import Say


@dataclass(frozen=True)
class Job:
    """What stays the same for all steps of a run. `code`: hash of the sources of the
    model's own classes."""

    recipe: Recipe
    place: RunDirectory
    store: Store
    machine: Machine
    code: str
    say: Say


@dataclass(frozen=True)
class StepOutcome:
    """What one pass gave: also what the store remembers of it, but for the artifact."""

    status: PassStatus
    artifact: Artifact
    metrics: Json
    findings: tuple[Finding, ...]
    summary: str
    parity: Parity | None
    worked_s: float = 0.0


@dataclass(frozen=True)
class Memory:
    """What the store keeps of a pass beside its artifact."""

    metrics: Json
    findings: tuple[Finding, ...] = ()
    summary: str = ""
    parity: Parity | None = None


def take_step(job: Job, state: State, step: Step, label: str) -> State:
    """The state after one pass. A failed leaf is in the record and the others go on; a
    failed pass of the trunk ends the run, which `failure` says. Raises
    `Interrupted` and `StoreUnwritable`."""
    check_stop()
    artifact = state.made.get(step.takes)
    entry = started(step, artifact)
    if artifact is None:
        entry = replace(entry, reason=f"{step.takes} was not made")
        job.say(f"{label}  skipped: {entry.reason}")
        return state.with_entry(entry)
    begin = time.perf_counter()
    try:
        outcome = carried_out(job, state, step, artifact, label)
    except (Interrupted, StoreUnwritable):
        raise
    except MloptError as error:
        entry = replace(entry, reason=error.message, seconds=time.perf_counter() - begin)
        if isinstance(error, Declined):
            entry = replace(entry, status="declined", reason=error.reason)
        elif isinstance(error, PassFailed):
            entry = replace(entry, reproducer=_reproducer(job, step, artifact, error))
        if not step.is_trunk:
            job.say(f"{label}  FAILED: {error.message}")
        return replace(state.with_entry(entry), failure=state.failure or error)
    return _published(job, state, step, entry, outcome, time.perf_counter() - begin, label)


def started(step: Step, artifact: Artifact | None) -> PassEntry:
    """The entry of a pass that has not ended."""
    return PassEntry(
        step.name,
        step.spec.name,
        config=step.config.model_dump(mode="json", by_alias=True),
        reason="not finished",
        input_sha256=artifact.digest if artifact else None,
        role=step.spec.role,
        trains=step.spec.trains,
        makes_dense=step.config.makes_dense,
    )


class Declined(UsageError):
    """A pass found nothing to do, and says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} declined: {reason}", f"leave out {name}; the other passes work without it")
        self.reason = reason


def key_of(job: Job, state: State, step: Step, artifact: Artifact, version: int) -> ActionKey:
    """Everything that the result of a step depends on."""
    spec, context = step.spec, state.context
    return ActionKey(
        pass_=spec.name,
        version=version,
        config=step.config.model_dump(mode="json", by_alias=True),
        input=artifact.digest,
        inputs=tuple(map(str, artifact.inputs)),
        dense=context.dense.digest,
        data=context.data.fingerprint,
        code=job.code,
        seed=context.seed,
        device=context.device,
        nproc=context.nproc if spec.trains else 1,
        threads=context.threads if spec.measures else None,
        machine=job.machine.key() if spec.measures or spec.machine_bound else None,
        files=tuple(_sha256_of(path) for path in step.config.reads()),
        samples=job.recipe.parity.samples,
        versions=installed_versions(),
    )


def _sha256_of(path: str) -> str:
    """The content of a file that a pass reads besides its input. Raises `UsageError`
    when it cannot be read."""
    try:
        return sha256_file(Path(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the plan.json of a pruning") from error


def carried_out(job: Job, state: State, step: Step, artifact: Artifact, label: str) -> StepOutcome:
    """What the pass gives, from the store or made now. Raises `MloptError`; nothing
    that failed its check is remembered."""
    implementation: type[Pass] = catalog.load(step.spec.implementation)
    key = key_of(job, state, step, artifact, implementation.version).digest()
    known = _remembered(job, key)
    if known is not None:
        state.checks.judge(known.artifact, known.parity)
        return known
    job.say(f"{label}  ...", "working")
    with _store_errors(job.store):
        stage = job.store.stage()
    begin = time.perf_counter()
    try:
        with _store_errors(job.store), library_errors(step.name):
            made: PassResult = implementation(step.config)(artifact, stage, state.context)
        worked = time.perf_counter() - begin
        if getattr(made, "declined", ""):
            raise Declined(step.name, made.declined)
        _check_result(step, made, stage)
        with _store_errors(job.store):
            root, digest = job.store.publish(stage)
    finally:
        job.store.discard(stage)
    result = replace(made.artifact, root=root, digest=digest)
    with library_errors(f"running {result.name}"):
        parity = _checked(state, result)
    state.checks.judge(result, parity)
    metrics: Json = plain({**made.metrics, "summary": made.summary})
    with _store_errors(job.store):
        job.store.record(key, result, to_json(Memory(metrics, made.findings, made.summary, parity)))
    return StepOutcome("ok", result, metrics, made.findings, made.summary, parity, worked)


def _check_result(step: Step, made: object, stage: Path) -> None:
    """A pass may be a plugin's: what it gives is checked before it is kept. Raises
    `PassFailed` naming what is wrong."""
    wrong = ""
    if not isinstance(made, PassResult) or not isinstance(made.artifact, Artifact):
        wrong = f"a {type(made).__name__}, not a PassResult with an Artifact"
    elif not step.is_trunk and made.artifact.name != step.gives:
        wrong = f"an artifact called {made.artifact.name}, and its configuration says {step.gives}"
    elif made.artifact.main and stage / made.artifact.main not in files_of(stage):
        wrong = f"{made.artifact.main}, which it has not written"
    elif not files_of(stage):
        wrong = "nothing: it has written no file"
    elif not all(isinstance(finding, Finding) for finding in made.findings):
        wrong = "findings that are no Finding"
    else:
        try:
            json.dumps([made.metrics, made.artifact.describe()])
            memory = Memory(plain(made.metrics), tuple(made.findings), made.summary)
            from_json(Memory, to_json(memory), step.name, "a result", "")
        except (TypeError, ValueError, UsageError) as error:
            wrong = f"a result that cannot be written down: {first_line(error)}"
    if wrong:
        raise PassFailed(f"{step.name} gave {wrong}", f"the pass {step.spec.name} has to be mended")


@contextlib.contextmanager
def _store_errors(store: Store) -> Iterator[None]:
    """A pass writes into the store: a disk that is full there is not the run
    directory's."""
    try:
        yield
    except OSError as error:
        raise store.explained(error) from error


def _remembered(job: Job, key: str) -> StepOutcome | None:
    """What the store remembers of an action; a memory that cannot be read is none."""
    hit = job.store.lookup(key)
    if hit is None:
        return None
    try:
        memory = from_json(Memory, hit[1], str(job.store.root), "a store", "")
    except UsageError:
        return None
    return StepOutcome("cached", hit[0], memory.metrics, memory.findings, memory.summary, memory.parity)


def _checked(state: State, result: Artifact) -> Parity | None:
    if result.format == Format.MODULE:
        return state.checks.of_module(result)
    return state.checks.of_export(result, state.module or state.start)


def _published(
    job: Job, state: State, step: Step, entry: PassEntry, outcome: StepOutcome, seconds: float, label: str
) -> State:
    """The state, the record and the run directory after a pass that went well."""
    result, metric = outcome.artifact, outcome.parity.metric if outcome.parity else None
    entry = replace(
        entry,
        status=outcome.status,
        reason="",
        seconds=seconds,
        output_sha256=result.digest,
        metrics=outcome.metrics,
        findings=outcome.findings,
        summary=outcome.summary,
    )
    first_shape = all(old.trains or old.role == "leaf" for old in state.record.passes)
    state = state.with_entry(entry).with_artifact(MODULE if step.is_trunk else step.gives, result)
    spent = state.seconds
    if step.spec.trains:
        spent = replace(spent, training=spent.training + outcome.worked_s)
    elif not step.is_trunk:
        spent = replace(spent, export=spent.export + outcome.worked_s)
    state = replace(state, seconds=spent)
    accuracy = state.record.accuracy
    if accuracy is not None and metric is not None:
        accuracy = replace(accuracy, after={**accuracy.after, step.name: metric})
        if step.config.makes_dense and first_shape:
            accuracy = replace(accuracy, baseline=metric)
        state = replace(state, record=replace(state.record, accuracy=accuracy))
    if step.config.makes_dense and first_shape:
        # What comes out of training is the dense model that everything after is
        # compared with, and the teacher.
        state = replace(state, context=replace(state.context, dense=result))
    if step.is_trunk:
        now = sizes(result.root, state.context.trust)
        state = state.with_counts(entry, now.parameters, now.bytes)
        plan = _next_plan(state, result)
        job.place.publish_module(result, plan)
        if plan is not None:
            record = replace(state.record, plans=(*state.record.plans, plan))
            state = replace(state, record=record)
    else:
        state = _with_export(state, result, outcome.parity)
        job.place.publish_export(result)
    shown = (
        f"{accuracy.metric} {metric:.2f}% (dense {accuracy.baseline:.2f}%)"
        if accuracy is not None and metric is not None
        else ""
    )
    job.say(
        "  ".join(part for part in (label, entry.status, entry.summary, shown, f"{seconds:.1f} s") if part)
    )
    return state


def _next_plan(state: State, result: Artifact) -> str | None:
    """What the decisions of a pruning are called in the run directory: plan.json,
    plan-2.json; None for what decided nothing."""
    if not (result.root / PLAN).is_file():
        return None
    number = len(state.record.plans) + 1
    return PLAN if number == 1 else f"plan-{number}.json"


def _with_export(state: State, result: Artifact, parity: Parity | None) -> State:
    entry = ArtifactEntry(
        name=result.name,
        format=str(result.format),
        precision=result.precision,
        target=result.target or None,
        path=f"exports/{result.main}",
        bytes=result.bytes,
        sha256=sha256_file(result.path),
        parity=parity,
    )
    record = replace(state.record, artifacts=(*state.record.artifacts, entry))
    backend = catalog.backend_for(result.format)
    if not backend.can_run:
        record = replace(
            record, not_measured=(*record.not_measured, f"{result.name}: built, not run: {backend.why_not}")
        )
    return replace(state, record=record)


def _reproducer(job: Job, step: Step, artifact: Artifact, error: PassFailed) -> str:
    """Write what reproduces a failure: the pass's input, and a recipe of that pass
    alone; returns the recipe's path."""
    given = job.place.keep_failure(step.name, artifact)
    model = job.recipe.model
    alone = job.recipe.model_copy(
        update={
            "model": model.model_copy(
                update={"path": str(given.resolve()), "arch": model.arch or model.factory}
            ),
            "passes": (step.config,),
            "bench": job.recipe.bench.model_copy(update={"enabled": False}),
        }
    )
    name = f"failed/{step.name}/recipe.yaml"
    job.place.write(name, alone.to_yaml())
    path = str(job.place.path / name)
    error.hint = f"{error.hint}; reproduce with: mlopt run {path}".lstrip("; ")
    return path
