"""The store: content-addressed artifacts, published whole or not at all.

    .store/objects/<digest>/...      the files of one artifact, by content
    .store/actions/<key>.json        what a pass gave: the digest, the artifact's description, the pass's record
    .store/tmp-<pid>-<n>/            being written; swept when its owner is dead

An action counts only if its object is there and every file still has the hash that the action names. Publishing: write in a temporary
directory, fsync the files and the directory, rename, fsync the parent. A kill at any point leaves either nothing or everything.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mlopt.artifact import Artifact, digest_of, files_of, hash_tree
from mlopt.errors import UsageError
from mlopt.system.files import explain_os_error, fsync_path, write_atomic


class Store:
    """The store of one run directory. Use `locked` around everything that writes."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.root = run_dir / ".store"
        self._staged = 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process. The kernel frees the lock when the process dies, however it dies.

        Raises `UsageError` when another process holds it, or when the directory cannot be written.
        """
        if self.run_dir.exists() and not self.run_dir.is_dir():
            raise UsageError(f"{self.run_dir} is a file, not a directory", "choose another -o")
        try:
            for name in ("objects", "actions"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            stream: IO[str] = (self.root / "lock").open("a+")
        except OSError as error:
            raise explain_os_error(error, self.run_dir) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"another mlopt run is working in {self.run_dir}", "wait for it, or choose another -o") from error
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what dead runs left half written. The lock is held, so every temporary directory is a dead run's."""
        for path in self.root.glob("tmp-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in [*self.run_dir.glob(".*.tmp-*"), *self.run_dir.glob("exports/.*.tmp-*"), *self.run_dir.glob(".*.old-*")]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def stage(self) -> Path:
        """A fresh directory to write an artifact in."""
        self._staged += 1
        path = self.root / f"tmp-{os.getpid()}-{self._staged}"
        path.mkdir(parents=True)
        return path

    def discard(self, staged: Path) -> None:
        """Drop a staged directory."""
        shutil.rmtree(staged, ignore_errors=True)

    def publish(self, staged: Path) -> tuple[Path, str]:
        """Move a staged directory to its content address: (path, digest)."""
        for path in files_of(staged):
            fsync_path(path)
        digest = digest_of(hash_tree(staged))
        final = self.root / "objects" / digest
        if final.exists() and digest_of(hash_tree(final)) == digest:
            self.discard(staged)
        else:
            shutil.rmtree(final, ignore_errors=True)
            fsync_path(staged)
            os.replace(staged, final)
            fsync_path(final.parent)
        return final, digest

    def record(self, key: str, artifact: Artifact, record: dict[str, Any]) -> None:
        """Remember that the action `key` gave this artifact."""
        data = {"digest": artifact.digest, "artifact": artifact.describe(), "record": record}
        write_atomic(self.root / "actions" / f"{key}.json", json.dumps(data).encode())

    def lookup(self, key: str) -> tuple[Artifact, dict[str, Any]] | None:
        """What an action gave, if it is all still there and intact; a damaged object is a miss."""
        path = self.root / "actions" / f"{key}.json"
        try:
            data = json.loads(path.read_bytes())
            digest = str(data["digest"])
            root = self.root / "objects" / digest
            if not root.is_dir() or digest_of(hash_tree(root)) != digest:
                return None
            return Artifact.from_description(data["artifact"], root, digest), dict(data["record"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
