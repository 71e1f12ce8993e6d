"""What CANDIDATE and BASELINE may be, as artifacts that can be run: a file, a module, a
run directory, a manifest, or `eager`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.catalog import backend_for
from mlopt.errors import UsageError
from mlopt.measuring.files import as_artifact
from mlopt.model.trust import Trust
from mlopt.records import run as runs
from mlopt.records.bench import BenchRow
from mlopt.records.edge import to_json, write_json
from mlopt.records.gate import Manifest, ManifestEntry, SideArtifact, SideRecord, read_manifest
from mlopt.records.machine import Machine
from mlopt.run.store import Store, default_place

EAGER = "eager"


@dataclass(frozen=True)
class StoredNumbers:
    """How fast an artifact was when it was there, and on which machine."""

    environment: Machine
    numbers: tuple[BenchRow, ...]


@dataclass(frozen=True)
class Side:
    """One artifact of a candidate or of a baseline.

    `label`: what rows call it. `artifact` is None when only `stored` numbers are left
    of it, for the reason in `missing`. `accuracy`: what its own run recorded, in
    percent.
    """

    label: str
    artifact: Artifact | None
    sha256: str
    bytes: int
    accuracy: float | None = None
    stored: StoredNumbers | None = None
    missing: str = ""

    def described(self) -> SideArtifact:
        """What the record says of it."""
        return SideArtifact(
            self.label, self.sha256, self.bytes, str(self.artifact.format) if self.artifact else None
        )


def side_record(given: str, sides: list[Side]) -> SideRecord:
    """What was given, and what it stood for."""
    return SideRecord(given, tuple(side.described() for side in sides))


@dataclass(frozen=True)
class Opening:
    """What is needed to open models: what may be built, the inputs of those that do not
    know their own, a directory for what has to be written on the way, and the store in
    which runs keep what they started from."""

    trust: Trust
    given: tuple[TensorSpec, ...]
    scratch: Path
    store: Store | None = None

    def artifact(
        self, place: Path, specs: tuple[TensorSpec, ...] = (), precision: str | None = None
    ) -> Artifact:
        """An artifact of a run or a manifest, which know its inputs and its
        precision."""
        artifact = as_artifact(str(place), self.trust, self.given or specs, self.scratch)
        return replace(artifact, inputs=artifact.inputs or specs, precision=precision or artifact.precision)


@dataclass(frozen=True)
class Resolved:
    """The artifacts of one side, and what was left out of it, in words."""

    sides: list[Side]
    notes: list[str]


def resolve(text: str, opening: Opening, candidate: str = "") -> Resolved:
    """Everything that an argument stands for. Raises `UsageError` for what is not
    there, or is empty.

    `candidate`: the other argument, for a baseline of `eager`: the dense module of the
    candidate's own run.
    """
    path = Path(text)
    if text == EAGER and candidate:
        return Resolved([_dense_of(Path(candidate), opening)], [])
    if path.is_dir() and (path / runs.FILE).is_file():
        return _run_directory(path, opening)
    if path.is_dir() and not any(path.iterdir()):
        raise UsageError(f"{path} is empty", "give an artifact, or the -o of compress or run")
    if path.suffix == ".json" and path.is_file():
        return _manifest(path, opening)
    artifact = as_artifact(text, opening.trust.for_model(text), opening.given, opening.scratch)
    return Resolved([_side(path.name if path.exists() else text, artifact)], [])


def _side(
    label: str, artifact: Artifact, accuracy: float | None = None, stored: StoredNumbers | None = None
) -> Side:
    return Side(label, artifact, artifact.sha256_of_main(), artifact.weight(), accuracy, stored)


def _dense_of(run: Path, opening: Opening) -> Side:
    """The module that a run started from, or trained: it is kept in the store."""
    hint = "name the model: --baseline model.pt"
    if not (run / runs.FILE).is_file():
        raise UsageError(
            f"--baseline {EAGER} is the dense module of a run, and {run} is no run directory", hint
        )
    digest = next((entry.input_sha256 for entry in runs.read(run).passes if not entry.makes_dense), None)
    store = opening.store or Store(default_place())
    with store.opened():
        place = store.object(str(digest))
        if digest is None or not (place / "model.json").is_file() or not store.holds(digest):
            gone = f"the store {store.root} no longer holds the dense module that {run} started from"
            raise UsageError(gone, f"{hint}, or name the store of the run: --store DIR")
        return _side("eager dense", opening.artifact(place))


def _run_directory(path: Path, opening: Opening) -> Resolved:
    """The exports of a run, those that can be run and trusted; its module when there
    are none."""
    run = runs.read(path)
    sides, notes = [], []
    for entry in run.artifacts:
        file, name = path / entry.path, entry.name
        accuracy = entry.parity.metric if entry.parity else None
        stored = StoredNumbers(run.environment, tuple(row for row in run.bench if row.artifact == name))
        backend = backend_for(entry.format)
        if not backend.can_run:
            notes.append(f"{name} was not judged: {backend.why_not}")
        elif not file.is_file():
            sides.append(Side(name, None, entry.sha256, entry.bytes, accuracy, stored, f"{file} is gone"))
        elif entry.format in (Format.TORCHSCRIPT, Format.AOTI) and not opening.trust.trust_code:
            notes.append(f"{name} was not judged: it is code (--trust-code runs it)")
        elif entry.format not in list(Format):  # of a plugin, whose runtime is registered here
            inputs = opening.given or run.input
            made = Artifact(name, entry.format, file.parent, file.name, "", inputs, entry.precision)
            sides.append(_side(name, made, accuracy, stored))
        else:
            sides.append(_side(name, opening.artifact(file, run.input, entry.precision), accuracy, stored))
    if not sides and (path / "model" / "model.json").is_file():
        sides.append(_side("model", opening.artifact(path / "model")))
    if not sides:
        raise UsageError(
            f"{path} holds no artifact that can be run here",
            notes[0] if notes else "run compress with --export onnx",
        )
    return Resolved(sides, notes)


def _manifest(path: Path, opening: Opening) -> Resolved:
    """A baseline that `--save-baseline` wrote: artifacts by path and hash, and their
    numbers."""
    manifest = read_manifest(path)
    return Resolved(
        [_from_entry(path, entry, manifest.environment, opening) for entry in manifest.entries], []
    )


def _from_entry(path: Path, entry: ManifestEntry, environment: Machine, opening: Opening) -> Side:
    file = path.parent / entry.path
    stored = StoredNumbers(environment, entry.numbers)
    side = Side(entry.name, None, entry.sha256, entry.bytes, entry.accuracy, stored, f"{file} is not there")
    if not file.exists():
        return side
    artifact = opening.artifact(file, entry.inputs, entry.precision)
    if artifact.sha256_of_main() != entry.sha256:
        here = artifact.sha256_of_main()
        raise UsageError(
            f"{file} is not the artifact that {path.name} was written for (SHA-256 {here[:12]}, there"
            f" {entry.sha256[:12]})",
            "restore it, or accept it as the new baseline with --save-baseline",
        )
    return replace(side, artifact=artifact, missing="")


def manifest_entry(side: Side, manifest: Path, numbers: list[BenchRow]) -> ManifestEntry:
    """One artifact of a baseline: where it is (relative to the manifest), what it is,
    and how fast it was here."""
    assert side.artifact is not None
    where = os.path.relpath(side.artifact.path.resolve(), manifest.resolve().parent)
    return ManifestEntry(
        name=side.label,
        path=Path(where).as_posix(),
        sha256=side.sha256,
        bytes=side.bytes,
        precision=side.artifact.precision,
        inputs=side.artifact.inputs,
        accuracy=side.accuracy,
        numbers=tuple(numbers),
    )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Keep a baseline as a file that git can track. Raises `UsageError` when the place
    cannot be written."""
    write_json(path, to_json(manifest))


def pair(
    candidate: list[Side], baseline: list[Side], only: str | None = None
) -> tuple[list[tuple[Side, Side]], list[str]]:
    """(pairs of candidate and baseline, notes on what has no partner). Raises
    `UsageError` when nothing fits together.

    One against one are a pair whatever they are called; a lone baseline is compared
    with every candidate; otherwise names decide.
    """
    if only is not None:
        candidate = [side for side in candidate if side.label == only] or candidate[:0]
        baseline = [side for side in baseline if side.label == only] or (
            baseline if len(baseline) == 1 else []
        )
        if not candidate or not baseline:
            raise UsageError(f"--artifact {only}: one of the two sides has none of that name")
    if len(baseline) == 1:
        return [(side, baseline[0]) for side in candidate], []
    named = {side.label: side for side in baseline}
    if len(candidate) == 1 and candidate[0].label not in named:
        raise UsageError(
            f"the baseline holds {', '.join(named)}, none of which is called {candidate[0].label}",
            "name the file itself: --baseline DIR/exports/model.onnx",
        )
    pairs = [(side, named[side.label]) for side in candidate if side.label in named]
    if not pairs:
        raise UsageError(
            f"no artifact has the same name on both sides: {', '.join(s.label for s in candidate)};"
            f" {', '.join(named)}",
            "name files",
        )
    notes = [
        f"{side.label} is new: there is nothing to compare it with"
        for side in candidate
        if side.label not in named
    ]
    return pairs, notes + [
        f"the candidate has no {name}" for name in named if name not in {side.label for side in candidate}
    ]
