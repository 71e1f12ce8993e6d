"""What CANDIDATE and BASELINE may be, as artifacts that can be run: a file, a module, a run directory, a manifest, or `eager`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.errors import MloptError, UsageError
from mlopt.measuring.files import as_artifact
from mlopt.model.trust import Trust
from mlopt.records import files as record

MANIFEST_VERSION = 1
MANIFEST_KIND = "mlopt baseline"
EAGER = "eager"


@dataclass(frozen=True)
class Side:
    """One artifact of a candidate or of a baseline. `label`: what rows call it. `artifact` is None when only `stored` numbers are left of it, for the
    reason in `missing`. `stored`: {"environment", "numbers": rows as in `bench`}; `accuracy`: what its own run recorded, in percent."""

    label: str
    artifact: Artifact | None
    sha256: str
    bytes: int
    accuracy: float | None = None
    stored: dict[str, Any] | None = None
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.label, "sha256": self.sha256, "bytes": self.bytes, "format": str(self.artifact.format) if self.artifact else None}


@dataclass(frozen=True)
class Found:
    """The artifacts of one side, and what was left out of it, in words."""

    sides: list[Side]
    notes: list[str]


def resolve(text: str, trust: Trust, given: tuple[TensorSpec, ...], scratch: Path, candidate: str = "") -> Found:
    """Everything that an argument stands for. Raises `UsageError` for what is not there, or is empty.

    `candidate`: the other argument, for a baseline of `eager`: the dense module of the candidate's own run.
    """
    path = Path(text)
    if text == EAGER and candidate:
        return Found([_dense_of(Path(candidate), trust, given, scratch)], [])
    if path.is_dir() and (path / record.FILE).is_file():
        return _run_directory(path, trust, given, scratch)
    if path.is_dir() and not any(path.iterdir()):
        raise UsageError(f"{path} is empty", "give an artifact, or the -o of compress or run")
    if path.suffix == ".json" and path.is_file():
        return _manifest(path, trust, given, scratch)
    artifact = as_artifact(text, trust.for_model(text), given, scratch)
    label = path.name if path.exists() else text
    return Found([_side(label, artifact)], [])


def _side(label: str, artifact: Artifact, **known: Any) -> Side:
    return Side(label, artifact, artifact.sha256_of_main(), artifact.weight(), **known)


def _dense_of(run: Path, trust: Trust, given: tuple[TensorSpec, ...], scratch: Path) -> Side:
    """The module that a run started from, or trained: it is kept in the run's store."""
    if not (run / record.FILE).is_file():
        raise UsageError(f"--baseline {EAGER} is the dense module of a run, and {run} is no run directory", "name the model: --baseline model.pt")
    digest = next((e["input_sha256"] for e in record.read(run)["passes"] if e["pass"] != "train"), None)
    place = run / ".store" / "objects" / str(digest)
    if digest is None or not (place / "model.json").is_file():
        raise UsageError(f"{run} no longer holds the dense module it started from", "name the model: --baseline model.pt")
    return _side("eager dense", as_artifact(str(place), trust, given, scratch))


def _run_directory(path: Path, trust: Trust, given: tuple[TensorSpec, ...], scratch: Path) -> Found:
    """The exports of a run, those that can be run and trusted; its module when there are none."""
    run = record.read(path)
    specs = tuple(TensorSpec.from_json(spec) for spec in run["input"])
    sides, notes = [], []
    for entry in run["artifacts"]:
        file, name = path / entry["path"], entry["name"]
        accuracy = entry["parity"]["metric"] if entry["parity"] else None
        stored = {"environment": run["environment"], "numbers": [row for row in run["bench"] if row["artifact"] == name]}
        if entry["format"] == Format.TENSORRT:
            notes.append(f"{name} was not judged: mlopt builds TensorRT engines and cannot run them yet")
        elif not file.is_file():
            sides.append(Side(name, None, entry["sha256"], entry["bytes"], accuracy, stored, f"{file} is gone"))
        elif entry["format"] in (Format.TORCHSCRIPT, Format.AOTI) and not trust.trust_code:
            notes.append(f"{name} was not judged: it is code (--trust-code runs it)")
        else:
            artifact = as_artifact(str(file), trust, given or specs, scratch)
            artifact = replace(artifact, inputs=artifact.inputs or specs, precision=entry["precision"])
            sides.append(_side(name, artifact, accuracy=accuracy, stored=stored))
    if not sides and (path / "model" / "model.json").is_file():
        sides.append(_side("model", as_artifact(str(path / "model"), trust, given, scratch)))
    if not sides:
        raise UsageError(f"{path} holds no artifact that can be run here", notes[0] if notes else "run compress with --export onnx")
    return Found(sides, notes)


def _manifest(path: Path, trust: Trust, given: tuple[TensorSpec, ...], scratch: Path) -> Found:
    """A baseline that `--save-baseline` wrote: artifacts by path and hash, and their numbers."""
    try:
        data = json.loads(path.read_text())
        if data.get("what") != MANIFEST_KIND:
            raise UsageError(f"{path} is not a baseline manifest", "write one with: mlopt gate MODEL --save-baseline baseline.json")
        if data["schema_version"] > MANIFEST_VERSION:
            raise UsageError(f"{path} was written by a newer mlopt (schema {data['schema_version']})", "upgrade mlopt")
        sides = [_from_entry(path, entry, data["environment"], trust, given, scratch) for entry in data["entries"]]
    except MloptError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a baseline manifest: {error}", "write one with: mlopt gate MODEL --save-baseline baseline.json") from error
    return Found(sides, [])


def _from_entry(path: Path, entry: dict[str, Any], environment: dict[str, Any], trust: Trust, given: Any, scratch: Path) -> Side:
    file = path.parent / entry["path"]
    stored = {"environment": environment, "numbers": entry["numbers"]}
    side = Side(entry["name"], None, entry["sha256"], entry["bytes"], entry.get("accuracy"), stored, f"{file} is not there")
    if not file.exists():
        return side
    specs = tuple(TensorSpec.from_json(spec) for spec in entry["inputs"])
    artifact = as_artifact(str(file), trust, given or specs, scratch)
    artifact = replace(artifact, inputs=artifact.inputs or specs, precision=entry["precision"])
    if artifact.sha256_of_main() != entry["sha256"]:
        raise UsageError(
            f"{file} is not the artifact that {path.name} was written for (SHA-256 {artifact.sha256_of_main()[:12]}, there {entry['sha256'][:12]})",
            "restore it, or accept it as the new baseline with --save-baseline",
        )
    return replace(side, artifact=artifact, missing="")


def write_manifest(path: Path, sides: list[Side], numbers: dict[str, list[dict[str, Any]]], environment: dict[str, Any], **about: Any) -> None:
    """Keep a baseline as a file that git can track: where the artifacts are (relative to it), what they are, and how fast they were here."""
    entries = []
    for side in sides:
        assert side.artifact is not None
        where = os.path.relpath(side.artifact.path.resolve(), path.resolve().parent)
        entry = {"name": side.label, "path": Path(where).as_posix(), "sha256": side.sha256, "bytes": side.bytes, "precision": side.artifact.precision}
        entry |= {"inputs": [spec.to_json() for spec in side.artifact.inputs], "accuracy": side.accuracy, "numbers": numbers.get(side.label, [])}
        entries.append(entry)
    data = {"schema_version": MANIFEST_VERSION, "what": MANIFEST_KIND, **about, "environment": environment, "entries": entries}
    record.write_json(path, data)


def pair(candidate: list[Side], baseline: list[Side], only: str | None = None) -> tuple[list[tuple[Side, Side]], list[str]]:
    """(pairs of candidate and baseline, notes on what has no partner). Raises `UsageError` when nothing fits together.

    One against one are a pair whatever they are called; a lone baseline is compared with every candidate; otherwise names decide.
    """
    if only is not None:
        candidate = [side for side in candidate if side.label == only] or candidate[:0]
        baseline = [side for side in baseline if side.label == only] or (baseline if len(baseline) == 1 else [])
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
        raise UsageError(f"no artifact has the same name on both sides: {', '.join(s.label for s in candidate)}; {', '.join(named)}", "name files")
    notes = [f"{side.label} is new: there is nothing to compare it with" for side in candidate if side.label not in named]
    return pairs, notes + [f"the candidate has no {name}" for name in named if name not in {side.label for side in candidate}]
