"""Runs a recipe: trunk, then leaves, each checked; then everything is measured, and the record and the report are written.

A finished pass is in the store and is not redone; a kill at any point loses at most the pass that was running.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlopt import __version__
from mlopt.artifact import Artifact, Format, sha256_file, sha256_json
from mlopt.data.sets import DataSet
from mlopt.errors import EXIT_INTERRUPTED, Interrupted, MloptError, PassFailed, UsageError
from mlopt.measuring.environment import PACKAGES, fingerprint, version_of
from mlopt.passes import pass_class
from mlopt.passes.context import RunContext
from mlopt.recipe.order import Planned, output_name, plan
from mlopt.recipe.schema import TRUNK, Recipe
from mlopt.records import files as record
from mlopt.records.edge import to_json
from mlopt.run.check import Checker
from mlopt.run.intake import library_errors, take_in, trust_of
from mlopt.run.store import Store
from mlopt.system.files import explain_os_error, publish_dir, publish_file, write_atomic
from mlopt.system.processes import check_stop, release_memory

Say = Callable[[str], None]
FITTING = ("train", "finetune", "distill")
PLAN = "plan.json"
"""What a pruning decided, beside its bundle."""


@dataclass
class Run:
    """A finished run: its directory, its record, and the error it ended with, if any."""

    directory: Path
    record: dict[str, Any]
    error: MloptError | None = None


@dataclass
class Pipeline:
    """One run of one recipe in one directory."""

    recipe: Recipe
    directory: Path
    say: Say = lambda line: None
    data: DataSet | None = None
    """A data set that is already loaded, instead of `recipe.data`."""

    _made: dict[str, Artifact] = field(default_factory=dict)
    _failure: MloptError | None = None
    _started: bool = False

    def run(self) -> Run:
        """Run everything. Raises `MloptError`; the record and whatever was finished are on disk in any case but a bad directory."""
        begin = time.perf_counter()
        self._spent = {"training": 0.0, "export": 0.0, "timing": 0.0}
        self._store = Store(self.directory)
        existed = self.directory.exists()
        with self._os_errors(), self._store.locked():
            self._record = record.new(self.recipe.model_dump(mode="json", by_alias=True), to_json(fingerprint()))
            previous = self._previous()
            try:
                self._work(previous)
            except KeyboardInterrupt as stop:
                self._record["status"], self._record["error"] = "interrupted", "interrupted"
                raise Interrupted(EXIT_INTERRUPTED) from stop
            except Interrupted:
                self._record["status"], self._record["error"] = "interrupted", "interrupted"
                raise
            except MloptError as error:
                self._record["status"], self._record["error"] = "failed", {"message": error.message, "hint": error.hint}
                raise
            finally:
                if not self._started:
                    self._leave_no_trace(existed)
                with contextlib.suppress(OSError):
                    total = time.perf_counter() - begin
                    own = total - sum(self._spent.values())
                    self._record["seconds"] = {**self._spent, "mlopt": own, "total": total}
                    if self._started:
                        self._write_report()
            return Run(self.directory, self._record)

    def _progress(self, line: str) -> None:
        check_stop()
        self.say(f"    {line}")

    def _leave_no_trace(self, existed: bool) -> None:
        """The model or the data was refused: an earlier run's record stays as it is, and a new directory goes again."""
        if not existed:
            shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain_os_error(error, self.directory) from error

    def _previous(self) -> dict[str, Any]:
        try:
            return record.read(self.directory)
        except UsageError:
            return {}

    def _work(self, previous: dict[str, Any]) -> None:
        recipe = self.recipe
        trust = trust_of(recipe.model)
        device = pick_device(recipe.device)
        taken = take_in(recipe, trust, self._store, self.data)
        steps = plan(recipe, taken.artifact.format)
        start, self._data = taken.artifact, taken.data
        self._record["source"] = {"sha256": taken.sha256, "kind": taken.kind}
        self._record["input"] = [spec.to_json() for spec in start.inputs]
        self.say(f"input  {'  '.join(str(spec) for spec in start.inputs)}  ({taken.how})")
        if self._data.any_part() is None:
            self._record["notes"].append("No data was given: accuracy was not measured, and outputs were compared on synthetic inputs.")
        self._context = RunContext(
            data=self._data,
            data_spec=recipe.data,
            trust=trust,
            seed=recipe.seed,
            device=device,
            nproc=recipe.nproc,
            threads=recipe.bench.threads,
            dense=start,
            say=self._progress,
        )
        self._check = Checker(self._context, recipe.parity, self._record)
        self._made = {"module" if start.format is Format.MODULE else "model.onnx": start}
        if start.format is Format.MODULE:
            self._check.baseline(start)
        self._started = True  # nothing that was given is refused after this
        write_atomic(self.directory / "recipe.yaml", recipe.to_yaml().encode())
        for number, step in enumerate(steps, 1):
            self._step(number, len(steps), step)
        self._finish(start, previous)

    def _key(self, step: Planned, artifact: Artifact, version: int) -> str:
        return sha256_json(
            {
                "pass": step.step.pass_,
                "version": version,
                "config": step.step.model_dump(mode="json", by_alias=True),
                "input": artifact.digest,
                "inputs": [str(spec) for spec in artifact.inputs],
                "dense": self._context.dense.digest,
                "data": self._data.fingerprint,
                "seed": self.recipe.seed,
                "device": self._context.device,
                "nproc": self.recipe.nproc if step.step.pass_ in FITTING else 1,
                "parity_samples": self.recipe.parity.samples,
                "plan": _sha256_of(getattr(step.step, "plan", None)),
                "versions": {"mlopt": __version__, **{name: version_of(name) for name in PACKAGES}},
            }
        )

    def _step(self, number: int, count: int, step: Planned) -> None:
        """One pass. A failed leaf is recorded and the others go on; a failed trunk pass ends the run."""
        check_stop()
        trunk = step.step.pass_ in TRUNK
        artifact = self._made.get(step.takes)
        entry: dict[str, Any] = {
            "name": step.name,
            "pass": step.step.pass_,
            "config": step.step.model_dump(mode="json", by_alias=True),
            "status": "failed",
            "reason": "not finished",
            "seconds": 0.0,
            "input_sha256": artifact.digest if artifact else None,
            "output_sha256": None,
            "metrics": {},
        }
        self._record["passes"].append(entry)
        label = f"[{number}/{count}] {step.name}"
        if artifact is None:
            entry["reason"] = f"{step.takes} was not made"
            self.say(f"{label}  skipped: {entry['reason']}")
            return
        begin = time.perf_counter()
        try:
            result = self._execute(step, artifact, entry, label)
        except PassFailed as error:
            self._fail(step, artifact, entry, error, begin)
            if trunk:
                raise
            self.say(f"{label}  FAILED: {error.message}")
            self._failure = self._failure or error
            return
        except MloptError as error:
            entry["reason"], entry["seconds"] = error.message, time.perf_counter() - begin
            raise
        entry["seconds"], entry["reason"] = time.perf_counter() - begin, ""
        entry["output_sha256"] = result.digest
        self._made["module" if trunk else output_name(step.step)] = result
        if step.step.pass_ == "train" and "prune" not in {entry["pass"] for entry in self._record["passes"]}:
            # What comes out of training is the dense model that everything after is compared with, and the teacher.
            self._context = replace(self._context, dense=result)
            self._check.new_baseline(self._context, entry)
        self._check.after(step, result, entry, trunk)
        self._publish(step, result, trunk)
        record.write(self.directory, self._record)
        summary = entry["metrics"].get("summary", "")
        self.say(f"{label}  {entry['status']}  {summary}  {self._check.shown(step.name)}  {entry['seconds']:.1f} s".replace("    ", "  "))

    def _execute(self, step: Planned, artifact: Artifact, entry: dict[str, Any], label: str) -> Artifact:
        implementation = pass_class(step.step.pass_)
        key = self._key(step, artifact, implementation.version)
        hit = self._store.lookup(key)
        if hit is not None:
            result, remembered = hit
            entry["status"], entry["metrics"] = "cached", remembered["metrics"]
            entry["parity"] = remembered["parity"]
            self._check.judge(step, result, entry["parity"])
            return result
        self.say(f"{label}  ...")
        stage = self._store.stage()
        begin = time.perf_counter()
        try:
            with library_errors(step.name):
                made = implementation(step.step)(artifact, stage, self._context)
            worked = time.perf_counter() - begin
            if step.step.pass_ in FITTING:
                self._spent["training"] += worked
            elif step.step.pass_ not in TRUNK:
                self._spent["export"] += worked
            if made.declined:
                entry["status"], entry["reason"] = "declined", made.declined
                raise UsageError(f"{step.name} declined: {made.declined}", f"leave out {step.name}; the other passes work without it")
            entry["metrics"] = made.metrics
            with library_errors(f"running {made.artifact.name}"):
                entry["parity"] = self._check.parity(step, made.artifact, self._made["module"]) if "module" in self._made else None
            self._check.judge(step, made.artifact, entry["parity"])
            root, digest = self._store.publish(stage)
        finally:
            self._store.discard(stage)
        result = replace(made.artifact, root=root, digest=digest)
        self._store.record(key, result, {"metrics": entry["metrics"], "parity": entry["parity"]})
        entry["status"] = "ok"
        return result

    def _fail(self, step: Planned, artifact: Artifact, entry: dict[str, Any], error: PassFailed, begin: float) -> None:
        """Write what reproduces a failure: the pass's input, and a recipe of that pass alone."""
        entry["seconds"], entry["reason"] = time.perf_counter() - begin, error.message
        place = self.directory / "failed" / step.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        given = place / (artifact.main or "model")
        publish_dir(artifact.root, given) if not artifact.main else publish_file(artifact.path, given)
        alone = self.recipe.model_copy(
            update={
                "model": self.recipe.model.model_copy(update={"path": str(given.resolve())}),
                "passes": (step.step,),
                "bench": self.recipe.bench.model_copy(update={"enabled": False}),
            }
        )
        write_atomic(place / "recipe.yaml", alone.to_yaml().encode())
        entry["reproducer"] = str(place / "recipe.yaml")
        error.hint = f"{error.hint}; reproduce with: mlopt run {place / 'recipe.yaml'}".lstrip("; ")

    def _publish(self, step: Planned, result: Artifact, trunk: bool) -> None:
        """Put the newest trunk and every export under their final names."""
        if trunk:
            publish_dir(result.root, self.directory / "model")
            if (result.root / PLAN).is_file():
                publish_file(result.root / PLAN, self.directory / f"{step.name.replace('prune', 'plan')}.json")
        else:
            target = self.directory / "exports"
            target.mkdir(exist_ok=True)
            for file in sorted(result.root.iterdir()):
                publish_file(file, target / file.name)

    def _finish(self, start: Artifact, previous: dict[str, Any]) -> None:
        self._remove_strangers()
        if "module" in self._made and not (self.directory / "model").is_dir():
            publish_dir(self._made["module"].root, self.directory / "model")
        begin = time.perf_counter()
        check_stop()
        if self.recipe.bench.enabled:
            from mlopt.run.bench import bench_artifacts

            release_memory()
            bench_artifacts(self._record, self._bench_list(start), self.recipe.bench, self._context, previous, self.say, self._parents())
        self._spent["timing"] = time.perf_counter() - begin
        if self._failure is None:
            self._failure = self._check.verdict(self.recipe.max_drop)
        if self._failure is not None:
            raise self._failure
        self._record["status"] = "ok"

    def _bench_list(self, start: Artifact) -> list[tuple[str, Artifact]]:
        dense = self._context.dense
        out = [("eager dense" if start.format is Format.MODULE else start.name, dense)]
        module = self._made.get("module")
        if module is not None and module.digest != dense.digest:
            out.append(("eager compressed", module))
        return out + [(name, artifact) for name, artifact in self._made.items() if name != "module" and artifact is not start]

    def _parents(self) -> dict[str, str]:
        """From what each measured artifact was made, by name."""
        trunk = "eager compressed" if self._made.get("module", self._context.dense).digest != self._context.dense.digest else "eager dense"
        made = {entry["output_sha256"]: entry for entry in self._record["passes"] if entry["output_sha256"]}
        names = {artifact.digest: name for name, artifact in self._made.items() if name != "module"}
        out = {trunk: "eager dense"} if trunk != "eager dense" else {}
        for digest, name in names.items():
            if digest in made:
                out[name] = names.get(made[digest]["input_sha256"], trunk)
        return out

    def _remove_strangers(self) -> None:
        """Exports of an earlier, different recipe would pass for this one's."""
        exports = self.directory / "exports"
        names = {file.name for artifact in self._made.values() if artifact.main for file in artifact.root.iterdir()}
        for file in exports.iterdir() if exports.is_dir() else []:
            if file.name not in names:
                file.unlink()

    def _write_report(self) -> None:
        from mlopt.report.write import write_reports

        record.write(self.directory, self._record)
        write_reports(self.directory, self._record)


def _sha256_of(path: str | None) -> str | None:
    """The content of a file that a pass reads besides its input. Raises `UsageError` when it cannot be read."""
    try:
        return None if path is None else sha256_file(Path(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the plan.json of a pruning") from error


def pick_device(wanted: str) -> str:
    """`cpu` or `cuda`. Raises `UsageError` when CUDA is asked for and is not there."""
    import torch

    has = torch.cuda.is_available()
    if wanted == "cuda" and not has:
        raise UsageError("--device cuda: PyTorch sees no CUDA device", "use --device cpu, or look at `mlopt doctor`")
    return "cuda" if has and wanted != "cpu" else "cpu"
