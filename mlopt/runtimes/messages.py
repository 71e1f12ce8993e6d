"""What a worker and its parent say to each other: typed values here, one line of JSON
each on the pipe.

Requests are named for what is to be done, answers for what was. Imports neither torch
nor pydantic: both would be in the memory that is measured of a worker.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.model.trust import Trust
from mlopt.runtimes.base import OpenOptions
from mlopt.runtimes.timing import Slowdown

if TYPE_CHECKING:
    from mlopt.records.bench import Operator


@dataclass(frozen=True)
class OpenJob:
    """Load an artifact. `opener`: see `opening.open_runtime`. `pin`: keep to as many
    cores as threads. Answer: `Opened`."""

    opener: str
    options: OpenOptions
    pin: bool = False
    slowdown: Slowdown | None = None


@dataclass(frozen=True)
class RunJob:
    """Run on the inputs in one file of `write_sets` and write the outputs to another,
    at most `chunk` samples a call (None: all at once). Answer: `Done`."""

    inputs: Path
    outputs: Path
    chunk: int | None = None


@dataclass(frozen=True)
class PrepareJob:
    """Bind the input sets of a file, which later blocks take in turn. `copies`: `in` or
    `out` of the time; `flush`: write over the caches before every call. Answer:
    `Ready`."""

    inputs: Path
    copies: str = "in"
    flush: bool = False
    cuda_graph: bool = False


@dataclass(frozen=True)
class BlockJob:
    """Time so many calls in a row. Answer: `Times`."""

    calls: int


@dataclass(frozen=True)
class ServeJob:
    """Make as many calls as fit into so many seconds. Answer: `Served`."""

    seconds: float


@dataclass(frozen=True)
class ProfileJob:
    """Profile so many calls on the first input set of a file. Answer: `Profiled`."""

    inputs: Path
    calls: int


@dataclass(frozen=True)
class UsageJob:
    """Say what memory was used. Answer: `Usage`."""


@dataclass(frozen=True)
class Opened:
    """The artifact is loaded. `runtime`, `device`, `provider`, `precision`: what really
    runs; `cores`: those it keeps to, empty when it is not pinned."""

    runtime: str
    device: str
    provider: str
    precision: str | None
    load_s: float
    cores: tuple[int, ...] = ()


@dataclass(frozen=True)
class Done:
    """The outputs are written."""


@dataclass(frozen=True)
class Ready:
    """Inputs are bound. `first_s`: seconds of the very first call; `clock`: `host` or
    `cuda events`."""

    first_s: float
    clock: str


@dataclass(frozen=True)
class Times:
    """Nanoseconds of each call, in order."""

    ns: tuple[int, ...]


@dataclass(frozen=True)
class Served:
    """So many calls were made in so many seconds."""

    calls: int
    seconds: float


@dataclass(frozen=True)
class Profiled:
    """The operators, the slowest first."""

    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Usage:
    """Largest memory of the process and of its device, in bytes (None where nobody
    counts it), and how often the system took the core away."""

    peak_rss_bytes: int
    peak_device_bytes: int | None
    preempted: int


@dataclass(frozen=True)
class Refused:
    """The request failed. `exit_code`: that of the `MloptError`, 0 for an error of a
    library."""

    error: str
    hint: str = ""
    exit_code: int = 0


Request = OpenJob | RunJob | PrepareJob | BlockJob | ServeJob | ProfileJob | UsageJob
Answer = Opened | Done | Ready | Times | Served | Profiled | Usage | Refused
KINDS = {kind.__name__: kind for kind in (*Request.__args__, *Answer.__args__)}


def to_line(message: Request | Answer) -> str:
    """One line of JSON, its end included."""
    return json.dumps({"kind": type(message).__name__, "body": asdict(message)}, default=_plain) + "\n"


def _plain(value: Any) -> str:
    """What JSON does not have, and a message does: paths."""
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a message cannot hold a {type(value).__name__}")


def from_line(line: str) -> Any:
    """The message of a line: a `Request` or an `Answer`."""
    data = json.loads(line)
    kind, body = KINDS[data["kind"]], data["body"]
    return kind(**{name: _field(name, value) for name, value in body.items()})


def _field(name: str, value: Any) -> Any:
    """A field as its type wants it; the names mean the same in every message."""
    if value is None:
        return None
    if name in ("inputs", "outputs"):
        return Path(value)
    if name in ("ns", "cores"):
        return tuple(value)
    if name == "options":
        trust = value["trust"]
        if trust is not None:
            trust = Trust(trust["arch"], trust["arch_args"], tuple(trust["allow_class"]), trust["trust_code"])
        return OpenOptions(**{**value, "path": Path(value["path"]), "trust": trust})
    if name == "slowdown":
        return Slowdown(**value)
    if name == "operators":
        from mlopt.records.bench import Operator

        return tuple(Operator(**row) for row in value)
    return value
