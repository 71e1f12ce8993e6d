"""The store: content-addressed artifacts, published whole or not at all, shared by all
runs of a user.

    objects/<digest>/...   the files of one artifact, by content
    actions/<key>.json     what a pass gave: digest, description, what the pass said
    owners/<id>            locked by a process at work
    tmp-<id>-<n>/          being written by that process; swept when it is dead
    lock                   shared by every run, exclusive for collecting garbage
    mlopt-store            says that this directory is a store

An action counts only if its object is there and every file still has the hash that the
action names. Publishing: write in a temporary directory, fsync the files and the
directory, rename, fsync the parent. A kill at any point leaves either nothing or
everything, and two runs that make the same thing at once leave one of the two, which
are equal.

It lies in the user's cache, not in the run's directory: runs share work, and a store
that came with somebody's model is never read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlopt.artifact import Artifact, digest_of, files_of, hash_tree
from mlopt.errors import UsageError
from mlopt.records.edge import Json
from mlopt.system.files import explain_os_error, fsync_path, write_atomic

MARK = "mlopt-store"
OBJECT = re.compile(r"[0-9a-f]{64}")
DAYS = 30.0
"""What no run has asked for in so many days is collected."""


def default_place() -> Path:
    """$XDG_CACHE_HOME/mlopt, else ~/.cache/mlopt. Raises `UsageError` where there is no
    home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if Path(cache).is_absolute():
        return Path(cache) / "mlopt"
    try:
        return Path.home() / ".cache" / "mlopt"
    except RuntimeError as error:
        raise UsageError(
            "there is no home directory to keep finished passes in", "name a place for them: --store DIR"
        ) from error


class StoreUnwritable(UsageError):
    """The store takes no more. It ends a run: nothing that comes after could be kept
    either."""


@dataclass(frozen=True)
class Usage:
    """How much the store holds."""

    objects: int
    bytes: int


class Store:
    """A store in a directory. Use `opened` around everything that reads or writes
    it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._id = uuid.uuid4().hex[:12]
        self._staged = 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Take part in the store; several processes may at once. Raises `UsageError`
        when it cannot be written, or is being collected."""
        with contextlib.ExitStack() as stack:
            try:
                self._make()
                shared: IO[str] = stack.enter_context((self.root / "lock").open("a+"))
                owner: IO[str] = stack.enter_context((self.root / "owners" / self._id).open("a+"))
                fcntl.flock(owner, fcntl.LOCK_EX)
            except OSError as error:
                raise self.explained(error) from error
            stack.callback((self.root / "owners" / self._id).unlink, missing_ok=True)
            stack.callback(self._drop_staged)
            if not _locked(shared, fcntl.LOCK_SH):
                raise UsageError(
                    f"the store {self.root} is being collected", "run the same command again in a moment"
                )
            self._sweep()
            yield

    def _make(self) -> None:
        """The empty store. Raises `UsageError` for a directory that holds something
        else: it would be collected with the rest."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # In this order: another process that makes the same store marks it first.
        if any(self.root.iterdir()) and not self._is_store():
            raise UsageError(
                f"{self.root} is not empty, and no store of mlopt",
                "name another with --store DIR, or empty this one",
            )
        (self.root / MARK).touch()
        for name in ("objects", "actions", "owners"):
            (self.root / name).mkdir(exist_ok=True)

    def _is_store(self) -> bool:
        return (self.root / MARK).is_file()

    def explained(self, error: OSError) -> StoreUnwritable:
        """A disk that would not take more, in words that name the store."""
        found = explain_os_error(error, self.root)
        return StoreUnwritable(found.message, "name another place for the store: --store DIR")

    def _drop_staged(self) -> None:
        """What this process has staged and neither published nor discarded."""
        for path in self.root.glob(f"tmp-{self._id}-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what dead processes left half written: the kernel freed their locks,
        however they died."""
        for owner in (self.root / "owners").iterdir():
            with contextlib.suppress(OSError), owner.open("a+") as stream:
                if owner.name != self._id and _locked(stream, fcntl.LOCK_EX):
                    for path in self.root.glob(f"tmp-{owner.name}-*"):
                        shutil.rmtree(path, ignore_errors=True)
                    owner.unlink(missing_ok=True)

    def stage(self) -> Path:
        """A fresh directory to write an artifact in."""
        self._staged += 1
        path = self.root / f"tmp-{self._id}-{self._staged}"
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
        final = self.object(digest)
        fsync_path(staged)
        try:
            os.replace(staged, final)
        except OSError:  # something is there already
            if not self.holds(digest):
                # Moved aside whole, never deleted in place: another process may be
                # publishing the same.
                aside = self.root / f"tmp-{self._id}-damaged-{self._staged}"
                with contextlib.suppress(FileNotFoundError):
                    os.replace(final, aside)
                os.replace(staged, final)
                shutil.rmtree(aside, ignore_errors=True)
            self.discard(staged)
        os.utime(final)  # asked for now: it stays when garbage is collected
        fsync_path(final.parent)
        return final, digest

    def object(self, digest: str) -> Path:
        """Where an artifact with this digest lies, if it is there."""
        return self.root / "objects" / digest

    def holds(self, digest: str) -> bool:
        """Whether an artifact is there and intact."""
        root = self.object(digest)
        return (
            OBJECT.fullmatch(digest) is not None
            and root.is_dir()
            and not root.is_symlink()
            and digest_of(hash_tree(root)) == digest
        )

    def record(self, key: str, artifact: Artifact, memory: Json) -> None:
        """Remember that the action `key` gave this artifact, and what the pass said of
        it."""
        data = {"digest": artifact.digest, "artifact": artifact.describe(), "record": memory}
        place = self.root / "actions" / f"{key}.json"
        if place.is_dir():  # not ours: whoever made it there has damaged the store
            shutil.rmtree(place)
        write_atomic(place, json.dumps(data).encode())

    def lookup(self, key: str) -> tuple[Artifact, Json] | None:
        """What an action gave, if it is all still there and intact; a damaged object is
        a miss."""
        path = self.root / "actions" / f"{key}.json"
        try:
            data = json.loads(path.read_bytes())
            digest = str(data["digest"])
            if not self.holds(digest):
                return None
            artifact = Artifact.from_description(data["artifact"], self.object(digest), digest)
            if artifact.main and artifact.path not in files_of(artifact.root):
                return None
            found = artifact, dict(data["record"])
            for used in (path, self.object(digest)):
                os.utime(used)  # asked for now: it stays when garbage is collected
            return found
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def usage(self) -> Usage:
        """How much lies there. An empty or absent store holds nothing."""
        objects = self._objects()
        return Usage(len(objects), sum(file.stat().st_size for path in objects for file in files_of(path)))

    def _objects(self) -> list[Path]:
        place = self.root / "objects"
        found = place.iterdir() if place.is_dir() else ()
        return sorted(path for path in found if OBJECT.fullmatch(path.name) and path.is_dir())

    def collect(self, days: float = DAYS) -> Usage:
        """Remove actions that no run has asked for in so many days, and artifacts that
        no action names and that are as old; returns what went.

        Raises `UsageError` while runs are at work, and for a directory that is no
        store.
        """
        if not self.root.exists() or (self.root.is_dir() and not any(self.root.iterdir())):
            return Usage(0, 0)
        if not self._is_store():
            raise UsageError(f"{self.root} is no store of mlopt", "name one: --store DIR")
        try:
            return self._collected(time.time() - days * 86400)
        except OSError as error:
            raise self.explained(error) from error

    def _collected(self, oldest: float) -> Usage:
        with (self.root / "lock").open("a+") as stream:
            if not _locked(stream, fcntl.LOCK_EX):
                raise UsageError(f"runs are at work in the store {self.root}", "wait for them to end")
            for path in self.root.glob("tmp-*"):  # nobody is at work: all of them are left over
                shutil.rmtree(path, ignore_errors=True)
            before = self.usage()
            named = set()
            for path in (self.root / "actions").glob("*.json"):
                if path.is_dir():
                    continue
                if path.stat().st_mtime < oldest:
                    path.unlink()
                else:
                    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                        named.add(str(json.loads(path.read_bytes())["digest"]))
            for path in self._objects():
                if path.name not in named and path.stat().st_mtime < oldest:
                    shutil.rmtree(path, ignore_errors=True)
            after = self.usage()
        return Usage(before.objects - after.objects, before.bytes - after.bytes)


def _locked(stream: IO[str], kind: int) -> bool:
    """Whether a lock could be had at once."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
