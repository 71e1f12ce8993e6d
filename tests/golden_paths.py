"""The key paths of JSON records: what must stay readable for scripts, whatever the values are."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

GOLDEN = Path(__file__).parent / "golden"
OPEN = ("versions",)
"""Objects whose keys differ from machine to machine."""


def key_paths(data: JsonValue, prefix: str = "") -> set[str]:
    """`rows[].ratio.low` for every value that is reached by keys and list items; lists of all lengths look alike."""
    out: set[str] = set()
    if isinstance(data, dict):
        for key, value in data.items():
            path = f"{prefix}.{key}" if prefix else key
            out.add(path)
            out |= key_paths(value, path) if key not in OPEN else set()
    elif isinstance(data, list):
        for value in data:
            out |= key_paths(value, f"{prefix}[]")
    return out


def golden(name: str) -> set[str]:
    """The paths that were written down before records had types."""
    return set((GOLDEN / f"{name}.txt").read_text().split())


def write_golden(name: str, data: JsonValue) -> None:
    """Write them down. Only ever run with the code whose keys are the promise."""
    (GOLDEN / f"{name}.txt").write_text("\n".join(sorted(key_paths(data))) + "\n")
