"""Every error that mlopt raises on purpose.

    MloptError            exit  what the user is asked to do
    ├── UsageError        2     fix the command line, the recipe or the input
    │   ├── RecipeError   2     fix the line of the recipe that is named
    │   ├── ModelRefused  2     give the narrow flag that is printed, or another file
    │   └── DataError     2     fix the data set
    ├── PassFailed        3     read the reproducer that is named
    ├── BackendMissing    4     run the install line that is printed
    ├── UnknownBackend    4     choose one that exists
    └── VerdictFailed     1     outputs or accuracy are past their tolerance

An error owns its exit code and its hint: what happened (`message`) and what to type
next (`hint`). Nothing here imports torch.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def first_line(error: BaseException) -> str:
    """What a library's error says in its first line; empty when it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]


def last_lines(log: str) -> str:
    """The end of what a process has written, in one line; empty when it wrote
    nothing."""
    return " | ".join(log.strip().splitlines()[-3:])


class MloptError(Exception):
    """Base of every deliberate error; `str()` is the message, `hint` the next step (may
    be empty)."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MloptError):
    """The request cannot be carried out as it was given."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key, a bad value, or passes that do not fit together."""


class ModelRefused(UsageError):
    """A model file is broken, or loading it would run code that nobody asked for."""


class DataError(UsageError):
    """The data set cannot be read or does not fit the model."""


class PassFailed(MloptError):
    """A pass broke, or its result did not survive its own checks. Nothing of it was
    published."""

    exit_code = 3


class BackendMissing(MloptError):
    """A runtime or exporter is not installed here."""

    exit_code = 4

    def __init__(self, backend: str, install: str) -> None:
        super().__init__(f"{backend} is not installed here", f"install it with: {install}")


class UnknownBackend(MloptError):
    """An exporter that mlopt does not have; the hint installs those that it has."""

    exit_code = 4

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"mlopt has no backend '{name}'", f"it has {', '.join(known)}: pip install 'mlopt[onnx,cpu,rtx]'"
        )


class VerdictFailed(MloptError):
    """An artifact was made and judged, and the verdict is no."""

    exit_code = 1


class Interrupted(MloptError):
    """Ctrl-C or SIGTERM; what was finished is in the store."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("interrupted", "run the same command again: finished passes are not redone")
        self.exit_code = exit_code
