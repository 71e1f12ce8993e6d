"""The hash of a model's own code."""

from __future__ import annotations

from typing import Any

from mlopt.model.trust import Trust


def code_sha256(origin: dict[str, Any] | None, trust: Trust) -> str:
    """Replaced at the merge."""
    return ""
