"""What is known at one moment of a run. A step takes a state and gives a new one;
nothing is changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mlopt.artifact import Artifact, Format
from mlopt.errors import MloptError
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import MODULE
from mlopt.records.run import COMPRESSED, DENSE, Amount, PassEntry, RunRecord, Seconds
from mlopt.run.checks import Checks


@dataclass(frozen=True)
class State:
    """`made`: artifacts by the name that passes take them by; `start`: the model as it
    came in; `failure`: the first thing that went wrong, which does not end the run when
    it was a leaf's."""

    record: RunRecord
    context: RunContext
    checks: Checks
    start: Artifact
    made: Mapping[str, Artifact] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=Seconds)
    failure: MloptError | None = None

    @property
    def module(self) -> Artifact | None:
        """The newest module of the trunk; None when the run started from a file."""
        return self.made.get(MODULE)

    def with_entry(self, entry: PassEntry) -> State:
        """The entry of the pass that is at work or has just ended: a second one of the
        same name replaces the first."""
        others = tuple(old for old in self.record.passes if old.name != entry.name)
        return replace(self, record=replace(self.record, passes=(*others, entry)))

    def with_artifact(self, name: str, artifact: Artifact) -> State:
        """One more artifact, or a newer module."""
        return replace(self, made={**self.made, name: artifact})

    def with_counts(self, entry: PassEntry, params: int, bytes: int) -> State:
        """`compression` after a pass of the trunk: before the first pass stays, after
        is the newest."""
        now = self.record.compression
        changed = replace(
            now, params=replace(now.params, after=params), bytes=replace(now.bytes, after=bytes)
        )
        before, after = entry.metrics.get("before"), entry.metrics.get("after")
        if isinstance(before, dict) and isinstance(after, dict):
            for key in ("macs", "channels"):
                old: Amount = getattr(now, key)
                first = _number(before.get(key)) if old.before is None else old.before
                changed = replace(changed, **{key: Amount(first, _number(after.get(key)))})
        return replace(self, record=replace(self.record, compression=changed))

    def benched(self) -> list[tuple[str, Artifact]]:
        """What is measured, by the names that the record calls it; the dense module
        first."""
        dense = self.context.dense
        out = [(DENSE if self.start.format == Format.MODULE else self.start.name, dense)]
        if self.module is not None and self.module.digest != dense.digest:
            out.append((COMPRESSED, self.module))
        return out + [
            (name, artifact)
            for name, artifact in self.made.items()
            if name != MODULE and artifact is not self.start
        ]

    def parents(self) -> dict[str, str]:
        """From what each measured artifact was made, by name."""
        dense = self.context.dense
        trunk = COMPRESSED if self.module is not None and self.module.digest != dense.digest else DENSE
        inputs = {
            entry.output_sha256: entry.input_sha256 for entry in self.record.passes if entry.output_sha256
        }
        names = {artifact.digest: name for name, artifact in self.made.items() if name != MODULE}
        out = {COMPRESSED: DENSE} if trunk == COMPRESSED else {}
        for digest, name in names.items():
            if digest in inputs:
                out[name] = names.get(inputs[digest] or "", trunk)
        return out


def _number(value: object) -> float | None:
    """A figure that a pass gave; None for anything else."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
