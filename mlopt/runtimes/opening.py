"""From an artifact to its runtime. Only the one that is needed is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from mlopt.catalog import backend_for
from mlopt.errors import UsageError
from mlopt.runtimes.base import OpenOptions, Runtime


def opener_of(format: str) -> str:
    """The `module:callable` that opens artifacts of this format. Raises `UsageError`
    for one that mlopt cannot run."""
    backend = backend_for(format)
    if not backend.can_run:
        raise UsageError(backend.why_not, f"measure it with the tools of {backend.title}")
    return backend.opener


def open_runtime(opener: str, options: OpenOptions) -> Runtime:
    """Load an artifact that mlopt made, or that the user trusts.

    `opener`: `module:callable`, from the catalog of this process or of the one that
    started it. It names code to be imported and called, so it must never be read from a
    file of the user.

    Raises `BackendMissing` when the runtime is not installed, and `UsageError` when the
    opener does not exist, when the file cannot be loaded, and when it runs on another
    device than was asked for: a figure of the CPU must not stand in the place of one of
    a GPU.
    """
    runtime = _callable(opener)(options)
    if runtime.device != options.device:
        raise UsageError(
            f"{options.path.name} was asked to run on {options.device}, and runs on {runtime.device}",
            f"measure it with --device {runtime.device}",
        )
    return runtime


def _callable(opener: str) -> Callable[[OpenOptions], Runtime]:
    module, _, name = opener.partition(":")
    try:
        found: Callable[[OpenOptions], Runtime] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"the runtime '{opener}' cannot be imported: {error}", "is its package importable here?"
        ) from error
    return found
