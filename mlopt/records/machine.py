"""Where figures were measured."""

from __future__ import annotations

from dataclasses import dataclass, field

SAME = ("cpu", "cores", "isa", "gpu", "governor", "virtual")
SAME_VERSIONS = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt")


@dataclass(frozen=True)
class Machine:
    """What a reader of figures must know of a machine. None where the system does not
    say.

    `versions`: of Python and of the packages that run models. `load_at_start`: the load
    averages of 1, 5 and 15 minutes.
    """

    versions: dict[str, str] = field(default_factory=dict)
    cpu: str | None = None
    cores: int | None = None
    isa: tuple[str, ...] = ()
    gpu: str | None = None
    governor: str | None = None
    kernel: str | None = None
    virtual: bool | None = None
    load_at_start: tuple[float, ...] | None = None

    def __str__(self) -> str:
        """A machine in a few words."""
        shown = ", ".join(
            f"{name} {self.versions[name]}"
            for name in ("torch", "onnxruntime", "onnxruntime-gpu")
            if name in self.versions
        )
        return f"{self.cpu}, {self.cores} cores, GPU {self.gpu or 'none'}, {shown}"

    def key(self) -> str:
        """Everything that figures and compiled files depend on, in one text."""
        values = [getattr(self, name) for name in SAME]
        return repr([*values, *(self.versions.get(name) for name in SAME_VERSIONS)])

    def differences(self, here: Machine) -> list[str]:
        """In what this machine differs from another, in words, as far as times depend
        on it; empty when figures of both may be set side by side."""
        pairs = [(key, getattr(self, key), getattr(here, key)) for key in SAME]
        out = [f"{key} {there!r} there, {now!r} here" for key, there, now in pairs if there != now]
        versions = [(name, self.versions.get(name), here.versions.get(name)) for name in SAME_VERSIONS]
        return out + [f"{name} {there} there, {now} here" for name, there, now in versions if there != now]

    def comparable(self, here: Machine) -> bool:
        """Whether figures of both may be set side by side."""
        return not self.differences(here)
