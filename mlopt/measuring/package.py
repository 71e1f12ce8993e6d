"""A benchmark in one file: artifacts, inputs and protocol, for a machine that has
neither the model's code nor its data.

A package is a ZIP of stored members: `bench.json` (protocol, and the name, format,
inputs and SHA-256 of every artifact), `inputs/N.npz`, `artifacts/NAME/...`. It holds no
pickle. What is in it is trusted as far as such files are on their own: TorchScript and
AOTInductor need --trust-code.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from mlopt.artifact import Artifact, Format, TensorSpec, digest_of, files_of, hash_tree
from mlopt.errors import MloptError, ModelRefused, UsageError
from mlopt.measuring.environment import fingerprint
from mlopt.measuring.files import as_artifact
from mlopt.measuring.run import BenchProtocol, measure, most_fixed, same_signature, workload_for
from mlopt.measuring.sampling import Contender, Workload
from mlopt.model import bundle
from mlopt.model.trust import Trust
from mlopt.records.bench import BenchRow
from mlopt.records.edge import from_json, text_of, to_json
from mlopt.records.package import SCHEMA_VERSION, PackageHead, PackedArtifact, PackedInputs
from mlopt.runtimes.worker import read_sets, write_sets
from mlopt.system.files import explain_os_error

HEAD = "bench.json"
MAX_BYTES = 64 * 2**30
AGAIN = "pack it again: mlopt bench ... --package"


def pack(
    out: Path,
    models: list[str],
    trust: Trust,
    given: tuple[TensorSpec, ...],
    batches: tuple[int, ...],
    protocol: BenchProtocol,
) -> list[str]:
    """Write a package; returns the names in it. `given`: the inputs of models that do
    not know their own.

    Raises `UsageError` for a module whose classes another machine would not have.
    """
    with tempfile.TemporaryDirectory(prefix="mlopt-package-") as scratch:
        artifacts = same_signature(
            [as_artifact(text, trust.for_model(text), given, Path(scratch)) for text in models]
        )
        for artifact in artifacts:
            if artifact.format == Format.MODULE:
                _without_code(artifact)
        partial = out.with_name(f".{out.name}.tmp-{os.getpid()}")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                head = PackageHead(
                    environment=fingerprint(),
                    conditions=protocol.conditions,
                    budget_s=protocol.budget_s,
                    shapes=tuple(
                        _add_inputs(archive, Path(scratch), n, workload_for(most_fixed(artifacts), b))
                        for n, b in enumerate(batches)
                    ),
                    artifacts=tuple(
                        _add(archive, number, artifact) for number, artifact in enumerate(artifacts)
                    ),
                )
                archive.writestr(HEAD, text_of(to_json(head)))
            os.replace(partial, out)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise explain_os_error(error, out) from error
    return [packed.name for packed in head.artifacts]


def _without_code(artifact: Artifact) -> None:
    """Raises `UsageError` for a module that only its own code can build."""
    try:
        bundle.read(artifact.path, Trust())
    except MloptError as error:
        raise UsageError(
            f"{artifact.name} cannot be packed: another machine would need its code ({error.message})",
            "export it first: mlopt export MODEL --to onnx",
        ) from error


def _add_inputs(archive: zipfile.ZipFile, scratch: Path, number: int, workload: Workload) -> PackedInputs:
    """The input sets of one batch size."""
    path = scratch / f"inputs-{number}.npz"
    write_sets(path, list(workload.sets))
    archive.write(path, f"inputs/{number}.npz")
    return PackedInputs(workload.batch, f"inputs/{number}.npz")


def _add(archive: zipfile.ZipFile, number: int, artifact: Artifact) -> PackedArtifact:
    """One artifact with the files that lie with it: all of a bundle's, or the main one
    and its data."""
    stem = artifact.path.name
    files = [f for f in files_of(artifact.root) if not artifact.main or f.name in (stem, f"{stem}.data")]
    for file in files:
        archive.write(file, f"artifacts/{number}/{file.relative_to(artifact.root).as_posix()}")
    hashes = hash_tree(artifact.root)
    kept = {
        file.relative_to(artifact.root).as_posix(): hashes[file.relative_to(artifact.root).as_posix()]
        for file in files
    }
    return PackedArtifact(
        name=Path(artifact.name).name or artifact.name,
        format=str(artifact.format),
        main=artifact.main,
        inputs=artifact.inputs,
        precision=artifact.precision,
        target=artifact.target,
        meta=artifact.meta,
        root=f"artifacts/{number}",
        digest=digest_of(kept),
    )


def is_packed(path: Path) -> bool:
    """Whether a file is a package of ours. PyTorch's own files are ZIP archives too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return HEAD in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def measure_packed(
    path: Path, trust: Trust, device: str | None = None, sessions: int = 1
) -> tuple[list[BenchRow], list[MloptError]]:
    """Rows as in `run.json` and the errors of what could not be measured. `device`
    replaces the one that it was packed for.

    Raises `ModelRefused` for a file that is broken, changed, or holds code that was not
    allowed; `UsageError` for one of a newer mlopt.
    """
    with tempfile.TemporaryDirectory(prefix="mlopt-package-") as scratch:
        root = Path(scratch)
        try:
            _unpack(path, root)
            head = _head(path, root)
            artifacts = [_opened(root, packed, trust) for packed in head.artifacts]
            workloads = [Workload(at.batch, tuple(read_sets(_inside(root, at.inputs)))) for at in head.shapes]
        except MloptError:
            raise
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
            raise ModelRefused(f"{path} is not a package of mlopt: {error}", AGAIN) from error
        conditions = replace(head.conditions, device=device) if device else head.conditions
        contenders = [Contender(artifact.name, artifact, trust) for artifact in artifacts]
        rows, lost = measure(contenders, workloads, BenchProtocol(head.budget_s, conditions, sessions))
    return rows, list(lost.values())


def _unpack(path: Path, root: Path) -> None:
    """Raises `ModelRefused` for what we did not write or what would fill the disk."""
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ModelRefused(f"{path} has compressed members: it was not written by mlopt", AGAIN)
        if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
            raise ModelRefused(f"{path} would unpack to more than {MAX_BYTES >> 30} GiB")
        archive.extractall(root)  # names that would leave the directory are cut by zipfile


def _head(path: Path, root: Path) -> PackageHead:
    """The head of an unpacked package. Raises `ModelRefused`, or `UsageError` for one
    of a newer mlopt."""
    data = json.loads((root / HEAD).read_text())
    if data["schema_version"] > SCHEMA_VERSION:
        raise UsageError(
            f"{path} was packed by a newer mlopt (schema {data['schema_version']})", "upgrade mlopt"
        )
    try:
        return from_json(PackageHead, data, str(path), "a package of mlopt", AGAIN)
    except UsageError as error:
        raise ModelRefused(error.message, error.hint) from error


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if root.resolve() not in path.parents:
        raise ModelRefused(f"'{name}' leaves the package")
    return path


def _opened(root: Path, packed: PackedArtifact, trust: Trust) -> Artifact:
    """An artifact of the package: its bytes are what was packed, and it may be run."""
    place = _inside(root, packed.root)
    if digest_of(hash_tree(place)) != packed.digest:
        raise ModelRefused(
            f"{packed.name} is not what was packed: its bytes changed", "copy the package again"
        )
    artifact = Artifact(
        packed.name,
        packed.format,
        place,
        packed.main,
        packed.digest,
        packed.inputs,
        packed.precision,
        packed.target,
        dict(packed.meta),
    )
    if artifact.main:
        _inside(root, f"{packed.root}/{artifact.main}")
        opened = as_artifact(str(artifact.path), trust, packed.inputs, root)
        if opened.format != artifact.format:
            raise ModelRefused(
                f"{packed.name} is packed as {artifact.format} and is {opened.format}",
                "copy the package again",
            )
    return artifact
