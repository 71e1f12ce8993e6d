"""`run.json`: what happened, as versioned JSON. The report is rendered from it alone; scripts read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlopt.errors import UsageError
from mlopt.system.files import explain_os_error, write_atomic

SCHEMA_VERSION = 1
FILE = "run.json"


def new(recipe: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """An empty record with every key that a reader may rely on."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "interrupted",
        "error": None,
        "environment": environment,
        "recipe": recipe,
        "source": {"sha256": None, "kind": None},
        "input": [],
        "notes": [],
        "passes": [],
        "compression": {key: {"before": None, "after": None} for key in ("params", "macs", "bytes", "channels")},
        "accuracy": None,
        "artifacts": [],
        "bench": [],
        "not_measured": [],
        "seconds": {},
    }


def write(directory: Path, record: dict[str, Any]) -> None:
    """Replace `run.json`, atomically."""
    write_atomic(directory / FILE, (json.dumps(record, indent=1) + "\n").encode())


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replace a JSON file, atomically. Raises `UsageError` when the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(data, indent=1, default=str) + "\n").encode())
    except OSError as error:
        raise explain_os_error(error, path) from error


GATE_FILE = "gate.json"


def find(path: Path) -> Path:
    """The record in a directory: a gate's verdict, else a run; a file is taken as it is."""
    if path.is_dir():
        return path / GATE_FILE if (path / GATE_FILE).is_file() else path / FILE
    return path


def read(path: Path) -> dict[str, Any]:
    """A record from a run directory, or from a file of a run or of a gate. Raises `UsageError`."""
    file = path / FILE if path.is_dir() else path
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        version = record["schema_version"]
        newer = version > SCHEMA_VERSION
    except OSError as error:
        raise UsageError(f"{path} holds no {file.name}", "give a run directory: the -o of compress, run or gate") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is not a record of mlopt: {error}", "give a run directory: the -o of compress, run or gate") from error
    if newer:
        raise UsageError(f"{file} was written by a newer mlopt (schema {version})", "upgrade mlopt")
    return record


def merge(results: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Bench rows of several files, one group for each machine: {machine, environment, files, bench}.

    Rows of one group were measured under fingerprints that agree, and may be set side by side; rows of two groups may not. A speed-up was
    measured within one file and stays what it is. `results`: (file, its content).
    """
    groups: list[dict[str, Any]] = []
    for file, data in results:
        if "bench" not in data or "environment" not in data:
            raise UsageError(f"{file} holds no bench rows", "write some: mlopt bench ... -o FILE, or give a run directory")
        group = next((g for g in groups if not differences_between(g["environment"], data["environment"])), None)
        if group is None:
            group = {"machine": machine_of(data["environment"]), "environment": data["environment"], "files": [], "bench": []}
            groups.append(group)
        group["files"].append(file)
        group["bench"] += [{**row, "file": file} for row in data["bench"]]
    return groups


def machine_of(environment: dict[str, Any]) -> str:
    """A machine in a few words."""
    versions = environment.get("versions", {})
    shown = ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "onnxruntime-gpu") if name in versions)
    return f"{environment.get('cpu')}, {environment.get('cores')} cores, GPU {environment.get('gpu') or 'none'}, {shown}"


SAME = ("cpu", "cores", "isa", "gpu", "governor", "virtual")
SAME_VERSIONS = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt")


def differences_between(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """In what two fingerprints differ, in words, as far as times depend on it; empty when their figures may be set side by side."""
    out = [f"{key} {a.get(key)!r} there, {b.get(key)!r} here" for key in SAME if a.get(key) != b.get(key)]
    versions = a.get("versions", {}), b.get("versions", {})
    return out + [f"{n} {versions[0].get(n)} there, {versions[1].get(n)} here" for n in SAME_VERSIONS if versions[0].get(n) != versions[1].get(n)]
