"""mlopt: takes a trained PyTorch model and gives back smaller, faster artifacts that
were checked and measured.

Importing `mlopt` does not import torch; the functions below do when they are first
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlopt.api import apply_plan, bench, compress, gate, load, prune
    from mlopt.data.sets import Data

__all__ = ["Data", "apply_plan", "bench", "compress", "gate", "load", "prune"]


def __getattr__(name: str) -> Any:
    if name in ("apply_plan", "bench", "compress", "gate", "load", "prune"):
        from mlopt import api

        return getattr(api, name)
    if name == "Data":
        from mlopt.data.sets import Data

        return Data
    raise AttributeError(f"module 'mlopt' has no attribute '{name}'")
