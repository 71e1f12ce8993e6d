"""The run directory: locked by one run at a time, and everything in it replaced
whole."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from mlopt.artifact import Artifact, files_of
from mlopt.errors import UsageError
from mlopt.records.run import RunRecord
from mlopt.system.files import explain_os_error, publish_dir, publish_file, write_atomic

LOCK = ".lock"
PLAN = "plan.json"
"""What a pruning decided, beside its bundle."""
OUR_PLANS = re.compile(r"plan(-\d+)?\.json")


class RunDirectory:
    """What `-o` names. Use `locked` around everything that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._existed = path.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process. The kernel frees the lock when the
        process dies, however it dies.

        Raises `UsageError` when another process holds it, or when the directory cannot
        be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file, not a directory", "choose another -o")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream: IO[str] = (self.path / LOCK).open("a+")
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"another mlopt run is working in {self.path}", "wait for it, or choose another -o"
                ) from error
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what dead runs left half written. The lock is held, so every temporary
        file is a dead run's."""
        for path in [
            *self.path.glob(".*.tmp-*"),
            *self.path.glob("exports/.*.tmp-*"),
            *self.path.glob(".*.old-*"),
        ]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def leave_no_trace(self) -> None:
        """The model or the data was refused: a directory that this run made goes again,
        an older one stays as it was."""
        if not self._existed:
            shutil.rmtree(self.path, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        """Replace one file."""
        write_atomic(self.path / name, text.encode())

    def publish_module(self, artifact: Artifact, plan_name: str | None = None) -> None:
        """Put the trunk's newest bundle at `model/`, and what its pruning decided at
        `plan_name`."""
        publish_dir(artifact.root, self.path / "model")
        if plan_name is not None:
            publish_file(artifact.root / PLAN, self.path / plan_name)

    def publish_export(self, artifact: Artifact) -> None:
        """Put an export and the files beside it into `exports/`."""
        _copy_files(artifact.root, self.path / "exports")

    def remove_strangers(self, now: RunRecord, before: RunRecord, given: Iterable[str]) -> None:
        """What an earlier, different recipe has left here would pass for this one's.

        `now`, `before`: the records of this run and of the one before it. Only what
        `before` names is removed: what somebody else has put here stays, and so do the
        files that this run was `given` to read.
        """
        exports = self.path / "exports"
        made = {self.path / entry.path for entry in now.artifacts} | {self.path / plan for plan in now.plans}
        kept = {path.resolve() for path in made} | {Path(text).resolve() for text in given}
        old = [exports / Path(entry.path).name for entry in before.artifacts]
        old += [path.with_name(f"{path.name}.data") for path in old]
        old += [self.path / name for name in before.plans if OUR_PLANS.fullmatch(name)]
        for path in old:
            its_graph = path.with_suffix("") if path.suffix == ".data" else path
            if path.is_file() and not path.is_symlink() and not {path.resolve(), its_graph.resolve()} & kept:
                path.unlink()
        module = self.path / "model"
        from_a_module = before.compression.params.after is not None
        from_a_file = now.compression.params.after is None
        given_it = any(path.is_relative_to(module.resolve()) for path in kept)
        if from_a_module and from_a_file and not given_it and not module.is_symlink():
            shutil.rmtree(module, ignore_errors=True)

    def keep_failure(self, name: str, artifact: Artifact) -> Path:
        """Copy the input of a pass that failed, to reproduce it with; returns the
        copy."""
        place = self.path / "failed" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if not artifact.main:
            publish_dir(artifact.root, place / "model")
            return place / "model"
        _copy_files(artifact.root, place)  # a graph may have its weights in files beside it
        return place / artifact.main


def _copy_files(root: Path, target: Path) -> None:
    """Every file below `root`, each replaced whole."""
    for file in files_of(root):
        place = target / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        publish_file(file, place)
