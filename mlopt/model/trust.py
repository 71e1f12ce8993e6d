"""What the user has allowed, by name. Imports no torch: the process that only runs an
ONNX file reads it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Trust:
    """What may be built, imported and called while a model is loaded.

    `arch`: the factory (`package.module:factory`) that builds the network, and
    `arch_args` its keyword arguments (plain JSON values). `allow_class`: classes by
    full name, or `package.module.*`. `trust_code`: everything.
    """

    arch: str | None = None
    arch_args: Mapping[str, object] = field(default_factory=dict)
    allow_class: tuple[str, ...] = ()
    trust_code: bool = False

    def named(self, full: str) -> bool:
        """Whether the user allowed this global: exactly, by `package.module.*`, or by
        trusting all code."""
        return self.trust_code or any(
            full == entry or (entry.endswith(".*") and full.startswith(entry[:-1]))
            for entry in self.allow_class
        )

    def for_model(self, text: str) -> Trust:
        """The same for a MODEL argument: a factory that is given as the model is
        allowed by that."""
        return replace(self, arch=text) if is_factory(text) else self


def is_factory(text: str) -> bool:
    """Whether a MODEL or --data argument looks like `package.module:factory`."""
    head, colon, tail = text.partition(":")
    parts = [*head.split("."), *tail.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)
