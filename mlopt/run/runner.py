"""Runs a recipe: trunk, then leaves, each checked; then everything is measured, and the
record and the report are written.

A finished pass is in the store and is not redone; a kill at any point loses at most the
pass that was running.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mlopt.artifact import Format
from mlopt.data.sets import DataSet
from mlopt.errors import EXIT_INTERRUPTED, Interrupted, MloptError, UsageError, first_line
from mlopt.measuring.environment import fingerprint
from mlopt.model.bundle import sizes
from mlopt.model.code import code_sha256
from mlopt.model.trust import Trust
from mlopt.passes.context import Modules, RunContext
from mlopt.recipe.configs import MODULE
from mlopt.recipe.order import steps_of
from mlopt.recipe.schema import Recipe
from mlopt.records import run as records
from mlopt.records.run import Amount, Failure, RunRecord, Source
from mlopt.report.write import write_reports
from mlopt.run.bench import bench_key, measure_run, measured_before
from mlopt.run.checks import Checks, verdict
from mlopt.run.directory import RunDirectory
from mlopt.run.intake import Intake, take_in, trust_of
from mlopt.run.state import State
from mlopt.run.step import Job, started, take_step
from mlopt.run.store import Store, default_place
from mlopt.system.files import explain_os_error
from mlopt.system.processes import check_stop, release_memory
from mlopt.system.progress import Say, silent

NO_DATA_NOTE = "No data was given: accuracy was not measured, and outputs were compared on synthetic inputs."


@dataclass(frozen=True)
class Run:
    """A finished run: its directory and its record."""

    directory: Path
    record: RunRecord


def run(
    recipe: Recipe,
    directory: Path,
    store: Store | None = None,
    say: Say = silent,
    data: DataSet | None = None,
) -> Run:
    """Run a recipe in a directory. `store`: the user's, unless another is given;
    `data`: a data set that is already loaded, instead of the recipe's.

    Raises `MloptError`; the record and whatever was finished are on disk in any case
    but a refused model or a bad directory.
    """
    begin = time.perf_counter()
    store = store or Store(default_place())
    place = RunDirectory(directory)
    state: State | None = None
    ended = RunRecord(environment=fingerprint(), recipe=recipe.model_dump(mode="json", by_alias=True))
    with _disk_errors(directory), store.opened(), place.locked():
        previous = _previous(directory)
        try:
            for state in _states(recipe, place, store, say, data, ended, previous):
                if state.failure is None:
                    check_stop()
            assert state is not None  # the first state is there, or `_states` has raised
            if state.failure is not None:
                raise state.failure
            ended = replace(state.record, status="ok")
        except KeyboardInterrupt as stop:
            ended = replace(_record_of(state, ended), status="interrupted", error="interrupted")
            raise Interrupted(EXIT_INTERRUPTED) from stop
        except Interrupted:
            ended = replace(_record_of(state, ended), status="interrupted", error="interrupted")
            raise
        except BaseException as error:
            ended = replace(_record_of(state, ended), status="failed", error=_failure(error))
            raise
        finally:
            if state is None:
                place.leave_no_trace()
            else:
                with contextlib.suppress(OSError, UsageError):
                    total = time.perf_counter() - begin
                    spent = state.seconds
                    own = total - spent.training - spent.export - spent.timing
                    ended = replace(ended, seconds=replace(spent, mlopt=own, total=total))
                    records.write(directory, ended)
                    write_reports(directory, ended)
        return Run(directory, ended)


def _record_of(state: State | None, empty: RunRecord) -> RunRecord:
    return empty if state is None else state.record


def _failure(error: BaseException) -> Failure:
    if isinstance(error, MloptError):
        return Failure(error.message, error.hint)
    return Failure(f"{type(error).__name__}: {first_line(error)}")


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, directory) from error


def _previous(directory: Path) -> RunRecord | None:
    """The record of the run before this one, if it can be read."""
    try:
        return records.read(directory)
    except UsageError:
        return None


def _states(
    recipe: Recipe,
    place: RunDirectory,
    store: Store,
    say: Say,
    data: DataSet | None,
    empty: RunRecord,
    previous: RunRecord | None,
) -> Iterator[State]:
    """The states of a run, one after the other: the model has come in, each pass has
    begun and ended, everything is measured."""
    trust = trust_of(recipe.model)
    taken = take_in(recipe, trust, store, data)
    steps = steps_of(recipe, taken.artifact.format)
    say(f"input  {'  '.join(str(spec) for spec in taken.artifact.inputs)}  ({taken.how})")
    context = context_of(recipe, trust, taken, pick_device(recipe.device), say)
    job = Job(recipe, place, store, empty.environment, code_of(taken, trust), say)
    state = _first_state(recipe, taken, context, empty)
    place.write("recipe.yaml", recipe.to_yaml())
    yield state  # nothing that was given is refused after this
    for number, step in enumerate(steps, 1):
        # Kept only if the run ends here and now: the record then says which pass was at
        # work.
        yield state.with_entry(started(step, state.made.get(step.takes)))
        state = take_step(job, state, step, f"[{number}/{len(steps)}] {step.name}")
        records.write(place.path, state.record)
        yield state
        if state.failure is not None and step.is_trunk:
            return
    if state.module is not None and not any(step.is_trunk for step in steps):
        place.publish_module(state.module)  # an earlier run may have left another
    if previous is not None:
        given = (file for step in steps for file in step.config.reads())
        place.remove_strangers(state.record, previous, (recipe.model.path, *given))
    state = _measured(state, recipe, previous, say)
    yield (
        state if state.failure is not None else replace(state, failure=verdict(state.record, recipe.max_drop))
    )


def code_of(taken: Intake, trust: Trust) -> str:
    """The hash of the model's own code; empty for a file, whose bytes are all there
    is."""
    return "" if taken.origin is None else code_sha256(taken.origin, trust)


def context_of(recipe: Recipe, trust: Trust, taken: Intake, device: str, say: Say = silent) -> RunContext:
    """What the passes of a run share."""

    def detail(line: str) -> None:
        check_stop()
        say(line, "detail")

    return RunContext(
        data=taken.data,
        data_spec=recipe.data,
        trust=trust,
        seed=recipe.seed,
        device=device,
        nproc=recipe.nproc,
        threads=recipe.bench.threads,
        dense=taken.artifact,
        modules=Modules(trust),
        say=detail,
    )


def _first_state(recipe: Recipe, taken: Intake, context: RunContext, empty: RunRecord) -> State:
    """The model has come in. Raises `DataError` for labels that are not its own."""
    start = taken.artifact
    checks = Checks(context, recipe.parity)
    record = replace(empty, source=Source(taken.sha256, taken.kind), input=start.inputs)
    if context.data.any_part() is None:
        record = replace(record, notes=(NO_DATA_NOTE,))
    if start.format == Format.MODULE:
        now = sizes(start.root, context.trust)
        params, weights = Amount(now.parameters, now.parameters), Amount(now.bytes, now.bytes)
        counts = replace(record.compression, params=params, bytes=weights)
        record = replace(record, compression=counts, accuracy=checks.baseline(start))
    return State(
        record, context, checks, start, {MODULE if start.format == Format.MODULE else start.name: start}
    )


def _measured(state: State, recipe: Recipe, previous: RunRecord | None, say: Say) -> State:
    """Every artifact measured beside the others, unless the run before this one has
    measured the same here."""
    if not recipe.bench.enabled:
        return state
    begin = time.perf_counter()
    check_stop()
    state.context.modules.forget()
    release_memory()
    artifacts = state.benched()
    found = measured_before(
        previous, bench_key(artifacts, recipe.bench, state.context), state.record.environment
    )
    try:
        found = found or measure_run(artifacts, state.parents(), recipe.bench, state.context, say)
    except Interrupted:
        raise
    except MloptError as error:
        return replace(state, failure=state.failure or error)
    missing = tuple(dict.fromkeys((*state.record.not_measured, *found.not_measured)))
    record = replace(state.record, bench=found.rows, bench_key=found.key, not_measured=missing)
    return replace(state, record=record, seconds=replace(state.seconds, timing=time.perf_counter() - begin))


def pick_device(wanted: str) -> str:
    """`cpu` or `cuda`. Raises `UsageError` when CUDA is asked for and is not there."""
    import torch

    has = torch.cuda.is_available()
    if wanted == "cuda" and not has:
        raise UsageError(
            "--device cuda: PyTorch sees no CUDA device", "use --device cpu, or look at `mlopt doctor`"
        )
    return "cuda" if has and wanted != "cpu" else "cpu"
