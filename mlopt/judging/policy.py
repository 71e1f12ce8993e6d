"""What a release must keep: one tolerance a metric, as YAML. Imports neither torch nor
a runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from mlopt.errors import UsageError
from mlopt.recipe import typed_yaml
from mlopt.recipe.typed_yaml import Frozen


def share(value: Any) -> Any:
    """`2.5%` as 0.025; numbers as they are. Raises `ValueError`."""
    if isinstance(value, str):
        if not value.strip().endswith("%"):
            raise ValueError("write a percentage (2.5%) or a share (0.025)")
        return float(value.strip()[:-1]) / 100
    return value


Tolerance = Annotated[
    float,
    BeforeValidator(share),
    Field(ge=0, lt=10, description="2.5% or 0.025: how much worse the candidate may be."),
]
Percent = Annotated[float, Field(gt=0, lt=100)]


class Latency(Frozen):
    """Time of a call, at a percentile of short blocks: the low end is what the artifact
    does, the high end what the machine does to it."""

    percentile: Percent = 10.0
    tolerance: Tolerance = 0.025
    floor_s: Annotated[
        float, Field(ge=0, description="A loss of fewer seconds a call than this is no loss.")
    ] = 0.0


class Tail(Frozen):
    """The guard: calls that are slow now and then. It can fail a release; when it stays
    open, the release passes and the report says so."""

    percentile: Percent = 95.0
    tolerance: Tolerance = 0.10
    floor_s: Annotated[float, Field(ge=0)] = 0.0
    required: bool = Field(False, description="Must it be decided for a PASS?")


class Throughput(Frozen):
    """Samples a second of one session: the mean call, without the slowest 2%."""

    tolerance: Tolerance = 0.05


class Size(Frozen):
    """Bytes on disk."""

    tolerance: Tolerance = 0.05
    floor_bytes: Annotated[int, Field(ge=0)] = 64 * 1024


class Memory(Frozen):
    """Largest resident size of a process that runs the artifact."""

    tolerance: Tolerance = 0.10
    floor_bytes: Annotated[int, Field(ge=0)] = 32 * 2**20


class Accuracy(Frozen):
    """Points of the task's metric on labelled data; `mlopt gate --data`, or what both
    runs recorded."""

    max_drop: Annotated[float, Field(ge=0)] = 1.0


class Parity(Frozen):
    """The candidate's outputs against the baseline's, on the same inputs. What is left
    out is not asked for: a retrained model may differ."""

    max_error: (
        Annotated[float, Field(gt=0, description="Largest difference, as a share of the largest output.")]
        | None
    ) = None
    min_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    min_agreement: (
        Annotated[float, Field(ge=0, le=1, description="Share of samples with the same arg-max.")] | None
    ) = None


class Anomaly(Frozen):
    """A gain or a loss of latency too large to be real: a wrong file, an empty graph, a
    fallback."""

    max_gain: Annotated[float, Field(gt=1)] = 20.0
    max_loss: Annotated[float, Field(gt=1)] = 10.0


class Policy(Frozen):
    """A whole policy. A metric that is `null` is not judged."""

    version: Literal[1] = 1
    latency: Latency | None = Latency()
    tail: Tail | None = Tail()
    throughput: Throughput | None = None
    size: Size | None = Size()
    memory: Memory | None = Memory()
    accuracy: Accuracy | None = None
    parity: Parity = Parity()
    anomaly: Anomaly = Anomaly()
    stored_limit: Tolerance = Field(
        0.25, description="Past this, stored numbers of the same machine may say FAIL."
    )
    budget_s: Annotated[float, Field(ge=1)] = Field(
        30.0, description="Seconds for each comparison of two artifacts, at most."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.99, description="1 minus the chance of a wrong FAIL for a candidate at the limit."
    )
    threads: Annotated[int, Field(gt=0)] = 1
    batch: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (1,)
    device: Literal["cpu", "cuda"] = "cpu"
    copies: Literal["in", "out"] = "in"

    def metrics(self) -> list[str]:
        """What is judged, in the order of the report."""
        judged = [
            name
            for name in ("latency", "tail", "throughput", "size", "memory", "accuracy")
            if getattr(self, name) is not None
        ]
        asked = any(value is not None for value in self.parity.model_dump().values())
        return judged + (["parity"] if asked else [])


PROFILES: dict[str, dict[str, float]] = {
    "default": {},
    "strict": {"latency.tolerance": 0.015, "budget_s": 60.0},
    "coarse": {"latency.tolerance": 0.05},
}
"""`strict` and `coarse` differ from the default in the tolerance on latency, and
`strict` may take a minute."""

HINT = "`mlopt schema --of policy` prints what a policy may hold"


def load(path: Path) -> Policy:
    """A policy from a YAML file. Raises `RecipeError` naming the line, or `UsageError`
    when it cannot be read."""
    return typed_yaml.load(Policy, path, "policy", HINT)


def build(base: Policy, overrides: Mapping[str, object]) -> Policy:
    """A policy with some values replaced: {"latency.tolerance": 0.02, "budget_s": 60}.
    Naming a metric that was `null` judges it.

    Raises `UsageError` for a bad value.
    """
    data = base.model_dump()
    for name, value in overrides.items():
        first, _, rest = name.partition(".")
        if rest:
            data[first] = {**(data[first] or {}), rest: value}
        else:
            data[first] = value
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}", HINT) from error


def profile(name: str) -> Policy:
    """`default`, `strict` or `coarse`."""
    return build(Policy(), PROFILES[name])


def named(given: Policy | str | Path) -> Policy:
    """A policy as it is, a profile by its name, or a file. Raises as `load`."""
    if isinstance(given, Policy):
        return given
    return profile(str(given)) if str(given) in PROFILES else load(Path(given))


def effective(tolerance: float, floor: float, baseline: float) -> float:
    """The tolerance as a share, not below what the floor is of the baseline's value
    (both in the same unit)."""
    return max(tolerance, floor / baseline) if baseline > 0 else tolerance


def log_limit(tolerance: float) -> float:
    """What a log ratio is compared with."""
    return math.log1p(tolerance)
