"""A benchmark in one file: artifacts, inputs and protocol, for a machine that has neither the model's code nor its data.

A ZIP of stored members: `bench.json` (protocol, and the name, format, inputs and SHA-256 of every artifact), `inputs/N.npz`, `artifacts/NAME/...`.
It holds no pickle. What is in it is trusted as far as such files are on their own: TorchScript and AOTInductor need --trust-code.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from mlopt.artifact import Artifact, Format, TensorSpec, digest_of, files_of, hash_tree
from mlopt.errors import MloptError, ModelRefused, UsageError
from mlopt.measuring.environment import fingerprint
from mlopt.measuring.files import as_artifact
from mlopt.measuring.protocol import Conditions
from mlopt.measuring.run import measure, most_fixed, same_signature, timed_shape
from mlopt.measuring.sampling import Entry, Shape
from mlopt.model.inputs import parse_spec
from mlopt.model.trust import Trust
from mlopt.runtimes.worker import read_sets, write_sets
from mlopt.system.files import explain_os_error

VERSION = 1
HEAD = "bench.json"
MAX_BYTES = 64 * 2**30


def pack(
    out: Path, models: list[str], trust: Trust, input: tuple[str, ...], batches: tuple[int, ...], budget_s: float, conditions: Conditions
) -> list[str]:  # fmt: skip
    """Write the bundle; returns the names in it. Raises `UsageError` for a module whose classes another machine would not have."""
    given = tuple(parse_spec(text, i) for i, text in enumerate(input))
    with tempfile.TemporaryDirectory(prefix="mlopt-bundle-") as scratch:
        artifacts = same_signature([as_artifact(text, trust.for_model(text), given, Path(scratch)) for text in models])
        for artifact in artifacts:
            if artifact.format is Format.MODULE:
                _without_code(artifact)
        head: dict[str, Any] = {"schema_version": VERSION, "what": "mlopt bench bundle", "environment": fingerprint()}
        head |= {"conditions": conditions.to_json(), "budget_s": budget_s, "shapes": [], "artifacts": []}
        partial = out.with_name(f".{out.name}.tmp-{os.getpid()}")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                for number, batch in enumerate(batches):
                    path = Path(scratch) / f"inputs-{number}.npz"
                    write_sets(path, list(timed_shape(most_fixed(artifacts), batch).sets))
                    archive.write(path, f"inputs/{number}.npz")
                    head["shapes"].append({"batch": batch, "inputs": f"inputs/{number}.npz"})
                for number, artifact in enumerate(artifacts):
                    head["artifacts"].append(_add(archive, number, artifact))
                archive.writestr(HEAD, json.dumps(head, indent=1))
            os.replace(partial, out)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise explain_os_error(error, out) from error
    return [entry["name"] for entry in head["artifacts"]]


def _without_code(artifact: Artifact) -> None:
    """Raises `UsageError` for a module that only its own code can build."""
    from mlopt.model import bundle

    try:
        bundle.read(artifact.path, Trust())
    except MloptError as error:
        raise UsageError(
            f"{artifact.name} cannot be packed: another machine would need its code ({error.message})",
            "export it first: mlopt export MODEL --to onnx",
        ) from error


def _add(archive: zipfile.ZipFile, number: int, artifact: Artifact) -> dict[str, Any]:
    """One artifact with the files that lie with it: all of a bundle's, or the main one and its data."""
    stem = artifact.path.name
    files = [f for f in files_of(artifact.root) if not artifact.main or f.name in (stem, f"{stem}.data")]
    for file in files:
        archive.write(file, f"artifacts/{number}/{file.relative_to(artifact.root).as_posix()}")
    name = Path(artifact.name).name or artifact.name
    described = artifact.describe() | {"name": name}
    hashes = hash_tree(artifact.root)
    kept = {file.relative_to(artifact.root).as_posix(): hashes[file.relative_to(artifact.root).as_posix()] for file in files}
    return {**described, "root": f"artifacts/{number}", "digest": digest_of(kept)}


def is_packed(path: Path) -> bool:
    """Whether a file is a bundle of ours. PyTorch's own files are ZIP archives too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return HEAD in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def measure_packed(path: Path, trust: Trust, device: str | None = None, sessions: int = 1) -> tuple[list[dict[str, Any]], list[MloptError]]:
    """Rows as in `run.json` and the errors of what could not be measured. `device` replaces the one that it was packed for.

    Raises `ModelRefused` for a file that is broken, changed, or holds code that was not allowed; `UsageError` for one of a newer mlopt.
    """
    with tempfile.TemporaryDirectory(prefix="mlopt-bundle-") as scratch:
        root = Path(scratch)
        try:
            with zipfile.ZipFile(path) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ModelRefused(f"{path} has compressed members: it was not written by mlopt", "pack it again: mlopt bench ... --bundle")
                if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
                    raise ModelRefused(f"{path} would unpack to more than {MAX_BYTES >> 30} GiB")
                archive.extractall(root)  # names that would leave the directory are cut by zipfile
            head = json.loads((root / HEAD).read_text())
            if head["schema_version"] > VERSION:
                raise UsageError(f"{path} was packed by a newer mlopt (schema {head['schema_version']})", "upgrade mlopt")
            artifacts = [_opened(root, entry, trust) for entry in head["artifacts"]]
            shapes = [Shape(int(s["batch"]), tuple(read_sets(_inside(root, s["inputs"])))) for s in head["shapes"]]
            conditions = Conditions(**{**head["conditions"], **({"device": device} if device else {})})
            budget_s = float(head["budget_s"])
        except MloptError:
            raise
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
            raise ModelRefused(f"{path} is not a bundle of mlopt: {error}", "pack it again: mlopt bench ... --bundle") from error
        entries = [Entry(artifact.name, artifact, trust) for artifact in artifacts]
        rows, lost = measure(entries, shapes, conditions, budget_s, sessions=sessions)
    return rows, list(lost.values())


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if root.resolve() not in path.parents:
        raise ModelRefused(f"'{name}' leaves the bundle")
    return path


def _opened(root: Path, entry: dict[str, Any], trust: Trust) -> Artifact:
    """An artifact of the bundle: its bytes are what was packed, and it may be run."""
    place = _inside(root, entry["root"])
    if digest_of(hash_tree(place)) != entry["digest"]:
        raise ModelRefused(f"{entry['name']} is not what was packed: its bytes changed", "copy the bundle again")
    fields = {key: entry[key] for key in ("name", "format", "main", "inputs", "precision", "target", "meta")}
    artifact = Artifact.from_description(fields, place, entry["digest"])
    if artifact.main:
        _inside(root, f"{entry['root']}/{artifact.main}")
        opened = as_artifact(str(artifact.path), trust, tuple(TensorSpec.from_json(spec) for spec in entry["inputs"]), root)
        if opened.format is not artifact.format:
            raise ModelRefused(f"{entry['name']} is packed as {artifact.format} and is {opened.format}", "copy the bundle again")
    return artifact
