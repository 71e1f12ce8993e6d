"""The store: whole or not at all, under kills, damage, locks and full disks."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlopt.artifact import Artifact, Format, TensorSpec, digest_of, hash_tree
from mlopt.errors import UsageError
from mlopt.run.directory import RunDirectory
from mlopt.run.store import Store, default_place
from mlopt.system.files import explain_os_error, write_atomic

SPEC = (TensorSpec("x", ("batch", 4)),)


def put(store: Store, key: str, content: bytes) -> Artifact:
    stage = store.stage()
    (stage / "a.bin").write_bytes(content)
    root, digest = store.publish(stage)
    artifact = Artifact("a", Format.ONNX, root, "a.bin", digest, SPEC)
    store.record(key, artifact, {"metrics": {"n": 1}})
    return artifact


def test_what_is_published_is_found_and_equal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.opened():
        artifact = put(store, "k", b"hello")
        found, record = store.lookup("k") or pytest.fail("not found")
        assert found == artifact
        assert record == {"metrics": {"n": 1}}
        assert put(store, "k2", b"hello").digest == artifact.digest
        assert len(list((store.root / "objects").iterdir())) == 1
        assert store.lookup("other") is None


@pytest.mark.parametrize("damage", ["byte", "missing", "torn action"])
def test_damage_is_a_miss_and_is_mended(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    with store.opened():
        artifact = put(store, "k", b"hello")
        if damage == "byte":
            artifact.path.write_bytes(b"hellO")
        elif damage == "missing":
            artifact.path.unlink()
        else:
            (store.root / "actions" / "k.json").write_text('{"digest": "')
        assert store.lookup("k") is None
        again = put(store, "k", b"hello")
        assert store.lookup("k") is not None
        assert again.path.read_bytes() == b"hello"


def test_a_second_run_is_told_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlopt.run.directory import RunDirectory\nwith"
        " RunDirectory(Path(sys.argv[1])).locked(): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with pytest.raises(UsageError, match="another mlopt run"), RunDirectory(tmp_path).locked():
        pass
    other.kill()  # the kernel frees the lock: nothing has to be removed by hand
    other.wait()
    with RunDirectory(tmp_path).locked():
        pass


def test_kill_at_any_write_leaves_all_or_nothing(tmp_path: Path) -> None:
    """A child publishes without end and is killed at random points; every object that
    is visible is whole."""
    code = textwrap.dedent("""
        import sys, os
        from pathlib import Path
        from mlopt.run.store import Store
        from mlopt.artifact import Artifact, Format
        store = Store(Path(sys.argv[1]))
        with store.opened():
            print("in", flush=True)
            n = 0
            while True:
                n += 1
                stage = store.stage()
                for i in range(3):
                    (stage / f"{i}.bin").write_bytes(os.urandom(200_000))
                root, digest = store.publish(stage)
                store.record(f"{os.getpid()}-{n}", Artifact("a", Format.ONNX, root, "0.bin", digest, ()), {})
                print(n, flush=True)
    """)
    for round_ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(2 + round_):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
    objects = list((tmp_path / "objects").iterdir())
    assert len(objects) >= 6
    assert all(digest_of(hash_tree(path)) == path.name for path in objects)
    store = Store(tmp_path)
    with store.opened():
        assert not list(store.root.glob("tmp-*")), "a dead run's staging was not swept"
        assert all(
            store.lookup(path.stem)
            for path in (store.root / "actions").glob("*.json")
            if not path.name.startswith(".")
        )


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A real EFBIG from the kernel, in a child so that the limit stays there."""
    target = tmp_path / "run.json"
    write_atomic(target, b"old")
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            write_atomic(target, b"n" * 100_000)
        except OSError as error:
            os._exit(0 if "no space" in explain_os_error(error, target).message else 3)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="is a file"), RunDirectory(tmp_path / "f").locked():
        pass


def test_two_runs_share_a_store_at_once(tmp_path: Path) -> None:
    """Both make the same artifact; one is kept, both have it, and the staging of the
    one that is alive is not swept."""
    first, second = Store(tmp_path), Store(tmp_path)
    with first.opened():
        stage = first.stage()
        (stage / "a.bin").write_bytes(b"hello")
        with second.opened():
            assert stage.is_dir(), "the work of a living process was swept"
            made = put(second, "k", b"hello")
        assert first.publish(stage) == (made.root, made.digest)
        assert len(list((tmp_path / "objects").iterdir())) == 1
        assert first.lookup("k") is not None


def test_collecting_keeps_what_is_asked_for_and_waits_for_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.opened():
        old, new = put(store, "old", b"x" * 1000), put(store, "new", b"y" * 500)
        with pytest.raises(UsageError, match="runs are at work"):
            Store(tmp_path).collect(0)
    month = 31 * 86400
    for path in (tmp_path / "actions" / "old.json", old.root, new.root):
        os.utime(path, (path.stat().st_mtime - month,) * 2)
    assert store.usage().bytes == 1500
    gone = store.collect()
    assert (gone.objects, gone.bytes) == (1, 1000)
    assert not old.root.exists()
    assert store.lookup("new") is not None
    assert store.collect(0).objects == 1
    assert store.usage().objects == 0


def test_the_store_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_place() == tmp_path / "mlopt"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # the specification says to ignore it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_place() == tmp_path / ".cache" / "mlopt"


def test_publishing_the_same_never_takes_away_what_another_has_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one is between looking and moving when the other publishes: the other's files
    stay where they are."""
    one, other = Store(tmp_path), Store(tmp_path)
    with one.opened(), other.opened():
        stage = one.stage()
        (stage / "a.bin").write_bytes(b"hello")
        taken: list[int] = []

        def meanwhile(path: Path) -> None:
            if path == stage and not taken:
                made = put(other, "k", b"hello")
                taken.append(made.path.stat().st_ino)

        monkeypatch.setattr("mlopt.run.store.fsync_path", meanwhile)
        root, _ = one.publish(stage)
    assert taken == [(root / "a.bin").stat().st_ino]


def test_what_is_staged_and_left_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.opened():
        store.stage()
    assert not list(tmp_path.glob("tmp-*"))
    (tmp_path / "tmp-of-nobody-1").mkdir()
    store.collect()
    assert not list(tmp_path.glob("tmp-*"))


def test_what_is_published_again_is_young_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.opened():
        root = put(store, "k", b"hello").root
        month = 31 * 86400
        for path in (root, tmp_path / "actions" / "k.json"):
            os.utime(path, (path.stat().st_mtime - month,) * 2)
        stage = store.stage()
        (stage / "a.bin").write_bytes(b"hello")
        store.publish(stage)
    assert store.collect().objects == 0
    assert root.is_dir()


def test_without_a_home_the_store_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(UsageError) as error:
        default_place()
    assert "--store" in error.value.hint


def test_a_directory_of_somebody_else_is_neither_used_nor_collected(tmp_path: Path) -> None:
    theirs = tmp_path / "objects" / "holiday"
    theirs.mkdir(parents=True)
    (theirs / "1.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="no store of mlopt"):
        Store(tmp_path).collect(0)
    with pytest.raises(UsageError, match="not empty, and no store"), Store(tmp_path).opened():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]
    assert (theirs / "1.jpg").is_file()


@pytest.mark.parametrize("place", ["objects/holiday", "actions/k.json"])
def test_what_somebody_puts_into_a_store_is_in_nobodys_way(tmp_path: Path, place: str) -> None:
    store = Store(tmp_path)
    with store.opened():
        pass
    (tmp_path / place).mkdir()
    (tmp_path / place / "1.jpg").write_bytes(b"x")
    assert store.usage().objects == 0
    assert store.collect(0).objects == 0
    assert (tmp_path / place / "1.jpg").is_file(), "nothing is removed that the store did not make"
    with store.opened():
        assert store.lookup("k") is None
        put(store, "k", b"hello")
        assert store.lookup("k") is not None


@pytest.mark.parametrize(
    "change",
    [
        {"main": "../../../etc/hostname"},
        {"main": "b.bin"},
        {"main": None},
        {"inputs": [{"name": "x", "dims": "abc", "dtype": "float32"}]},
        {"inputs": [{"name": "x", "dims": [[1]], "dtype": "float32"}]},
        {"meta": 3},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_description_that_is_damaged_is_a_miss(tmp_path: Path, change: dict[str, object]) -> None:
    store = Store(tmp_path)
    with store.opened():
        put(store, "k", b"hello")
        path = tmp_path / "actions" / "k.json"
        data = json.loads(path.read_text())
        assert store.lookup("k") is not None
        path.write_text(json.dumps({**data, "artifact": {**data["artifact"], **change}}))
        assert store.lookup("k") is None


def test_an_object_that_is_a_link_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.opened():
        artifact = put(store, "k", b"hello")
        artifact.root.rename(tmp_path / "elsewhere")
        artifact.root.symlink_to(tmp_path / "elsewhere")
        assert store.lookup("k") is None
