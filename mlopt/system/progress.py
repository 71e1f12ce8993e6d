"""What is said while work goes on. Results go elsewhere."""

from __future__ import annotations

from typing import Literal, Protocol

Kind = Literal["done", "working", "detail"]


class Say(Protocol):
    """Tells the user a line. `done`: something ended, the line stays. `working`:
    something begins, the line may be a spinner's. `detail`: for those who asked for
    more (`-v`)."""

    def __call__(self, line: str, kind: Kind = "done") -> None: ...


def silent(line: str, kind: Kind = "done") -> None:
    """Says nothing."""
