"""`run.json`: what happened, as versioned JSON. The report is rendered from it alone; scripts read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlopt.errors import UsageError
from mlopt.system.files import write_atomic

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
