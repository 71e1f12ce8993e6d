"""Indices as people write them: `0-7,9`."""

from __future__ import annotations

from mlopt.errors import UsageError


def ranges(kept: list[int]) -> str:
    """[0, 1, 2, 5] as `0-2,5`."""
    out: list[list[int]] = []
    for index in kept:
        if out and index == out[-1][1] + 1:
            out[-1][1] = index
        else:
            out.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in out)


def indices(text: object, size: int, where: str) -> list[int]:
    """The inverse of `ranges`. Raises `UsageError` for what is no range below
    `size`."""
    out: list[int] = []
    try:
        for part in str(text).split(","):
            low, _, high = part.partition("-")
            out += range(int(low), int(high or low) + 1)
    except ValueError:
        out = [-1]
    if not out or min(out) < 0 or max(out) >= size:
        raise UsageError(
            f"the plan keeps '{text}' of {where}, which has {size} indices", "write ranges such as 0-7,9"
        )
    return out
