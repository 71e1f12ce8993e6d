"""What passes, checks and measurements share during one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlopt.artifact import Artifact
from mlopt.data.samples import samples_for
from mlopt.data.sets import DataSet
from mlopt.model.trust import Trust


@dataclass(frozen=True)
class RunContext:
    """What a pass may use besides its input: everything here is the same for all passes of a run."""

    data: DataSet
    data_spec: str | None
    trust: Trust
    seed: int
    device: str
    nproc: int
    threads: int
    dense: Artifact
    """The module as it came in: the teacher, and what everything is compared with."""
    say: Callable[[str], None] = lambda line: None

    def samples(self, artifact: Artifact, count: int) -> tuple[tuple[Any, ...], Any]:
        """Real or synthetic example inputs: `samples_for`."""
        return samples_for(artifact, count, self.data, self.seed)
