"""What the report of a history says, before it is rendered."""

from __future__ import annotations

import math

from mlopt.records.history import Chain, Change
from mlopt.report.blocks import Block, Document, Drawings, Line, Lines, Table
from mlopt.report.verdict_words import percent


def sentence(chain: Chain, change: Change) -> str:
    """A change in words."""
    first, last = chain.links[change.first], chain.links[change.last]
    where = f"at {first.name}" if change.first == change.last else f"from {first.name} to {last.name}"
    word = "slower" if change.ratio > 1 else "faster"
    bounds = f"{percent(change.low - 1)} to {percent(change.high - 1)}"
    return f"{chain.artifact}: {word} by {percent(change.ratio - 1)} ({bounds}) {where}"


def history_document(chains: list[Chain]) -> Document:
    """One chart and one table a chain."""
    headlines = [sentence(chain, change) for chain in chains for change in chain.changes]
    blocks: list[Block] = []
    for chain in chains:
        if not chain.changes:
            headlines.append(
                f"{chain.artifact}: no change in {len(chain.links)} comparisons; together"
                f" {percent(chain.levels[-1] - 1)}"
            )
        marks = tuple((change.first + 1, percent(change.ratio - 1)) for change in chain.changes)
        names = ("start", *(link.name for link in chain.links))
        line = Line(
            f"{chain.artifact}",
            "time as a share of the first baseline's; lower is faster",
            names,
            chain.levels,
            chain.lows,
            chain.highs,
            marks,
        )
        blocks.append(Drawings(chain.machine, (line,)))
        rows = tuple(
            (
                link.at,
                link.name,
                link.verdict,
                percent(math.expm1(link.value)),
                f"{level:.4f}",
                f"{low:.4f} to {high:.4f}",
            )
            for link, level, low, high in zip(
                chain.links, chain.levels[1:], chain.lows[1:], chain.highs[1:], strict=True
            )
        )
        blocks.append(
            Table(
                chain.artifact,
                ("date", "commit", "verdict", "against its baseline", "level", "95%"),
                rows,
                left=3,
            )
        )
        said = tuple(
            f"the baseline of {chain.links[i].name} is not what was judged before it: the chain may miss a"
            " step there"
            for i in chain.gaps
        )
        blocks.append(Lines("Gaps", said))
    slower = any(change.ratio > 1 for chain in chains for change in chain.changes)
    status = "changed" if any(chain.changes for chain in chains) else "no change"
    return Document.of("mlopt history", status, not slower, headlines, blocks)
