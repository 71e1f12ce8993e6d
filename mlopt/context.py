"""What passes, checks and measurements share during one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlopt.artifact import Artifact
from mlopt.data import DataSet
from mlopt.errors import DataError
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
        """Real inputs and targets of about `count` samples for an artifact (calibration data first), or synthetic ones without data.

        For a fixed batch the count is a multiple of it. Raises `DataError` when the data has fewer inputs than the model.
        """
        from mlopt.model.inputs import synthetic

        fixed = fixed_batch(artifact)
        part = self.data.any_part()
        if part is None:
            if fixed is None:
                return synthetic(artifact.inputs, dynamic=min(count, 8), seed=self.seed), None
            return synthetic(artifact.inputs, seed=self.seed), None
        inputs, target = part.take(count if fixed is None else max(fixed, count // fixed * fixed))
        if len(inputs) != len(artifact.inputs):
            raise DataError(f"the data gives {len(inputs)} inputs a batch, the model takes {len(artifact.inputs)}", "give --input once for each")
        if fixed is not None and len(inputs[0]) < fixed:
            raise DataError(
                f"the model's batch is fixed at {fixed}, the data has {len(inputs[0])} samples", "leave the batch dynamic: --input batch,..."
            )
        return inputs, target


def fixed_batch(artifact: Artifact) -> int | None:
    """The batch size an artifact insists on, or None when it is dynamic."""
    first = artifact.inputs[0].dims[0] if artifact.inputs and artifact.inputs[0].dims else 1
    return first if isinstance(first, int) else None
