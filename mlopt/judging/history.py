"""The latency of a model over commits, from the verdicts that were kept: a chain of
measured ratios, and where it changed.

Each verdict measured one candidate against its baseline, side by side. Set one after
the other they are a chain: the level at a commit is the product of the ratios up to it,
and its variance the sum of theirs. No time of one day is compared with a time of
another.

Change points: the logarithms of the links are independent measurements with known
variances, and zero where nothing changed. Optimal partitioning (Jackson et al. 2005,
IEEE Signal Processing Letters 12) finds the segments of constant mean with the least
penalised cost, pruned as PELT does (Killick, Fearnhead and Eckley 2012, JASA 107). A
sudden change is a segment of one link, a creeping one of several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist

from mlopt.errors import UsageError
from mlopt.records.bench import Ratio
from mlopt.records.history import HINT, Chain, Change, Judged, JudgedRow, Link, read_judged

NORMAL = NormalDist()
CONFIDENCE = 0.95
FALSE_ALARMS = 0.05
SMALLEST = 0.005
"""Changes of less than half a percent are not called changes: more than the processes
explain, less than anyone would act on."""


def read_links(paths: Sequence[Path]) -> list[Link]:
    """Every latency that was judged, in files and below directories, oldest first.
    Raises `UsageError` when there is none, or one was written by a newer mlopt."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*.json") if _is_verdict(file))
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"{path} is not there", "give directories or files that mlopt gate -o wrote")
    links = [
        link
        for file in dict.fromkeys(files)
        if (judged := read_judged(file)) is not None
        for link in _links_of(file, judged)
    ]
    if not links:
        shown = ", ".join(map(str, paths))
        raise UsageError(
            f"no verdict on latency in {shown}",
            "keep what the gate writes: mlopt gate NEW --baseline OLD -o history/COMMIT",
        )
    return sorted(links, key=lambda link: (link.at, link.file))


def _is_verdict(file: Path) -> bool:
    """Whether a JSON file is a gate's; directories hold others. What claims to be one
    is read strictly."""
    try:
        return '"verdict"' in file.read_text(errors="replace")[:2000]
    except OSError:
        return False


def _links_of(file: Path, judged: Judged) -> list[Link]:
    """The latencies that were measured side by side and may be real. Raises
    `UsageError`."""
    measured = [
        row for row in judged.rows if row.metric == "latency" and row.verdict not in ("INVALID", "ANOMALOUS")
    ]
    return [_link(file, judged, row, row.ratio) for row in measured if row.ratio is not None]


def _link(file: Path, judged: Judged, row: JudgedRow, ratio: Ratio) -> Link:
    names = [
        artifact.name for artifact in judged.candidate.artifacts
    ]  # both sides are in the order of the pairs
    if row.artifact not in names or names.index(row.artifact) >= len(judged.baseline.artifacts):
        raise UsageError(
            f"{file} is not a verdict of mlopt gate: it does not say what {row.artifact} is", HINT
        )
    if not 0 < ratio.estimate < math.inf:
        raise UsageError(f"{file} is not a verdict of mlopt gate: a ratio of {ratio.estimate}", HINT)
    at = names.index(row.artifact)
    return Link(
        name=(judged.commit or file.parent.name)[:12],
        at=judged.created or "",
        machine=str(judged.environment),
        artifact=f"{row.artifact}, batch {row.batch}",
        candidate=judged.candidate.artifacts[at].sha256,
        baseline=judged.baseline.artifacts[at].sha256,
        value=math.log(ratio.estimate),
        sd=_sd(ratio),
        verdict=row.verdict,
        file=str(file),
    )


def _sd(ratio: Ratio) -> float:
    """Standard deviation of the log ratio, from the width of its interval."""
    low, high = max(ratio.low, 1e-9), min(ratio.high, 1e9)
    quantile = NORMAL.inv_cdf(0.5 + min(ratio.confidence, 1 - 1e-9) / 2) if ratio.confidence > 0 else 1.0
    return max(1e-4, (math.log(high) - math.log(low)) / 2 / max(quantile, 0.1))


def chains(links: Sequence[Link]) -> list[Chain]:
    """One chain for each artifact on each machine: figures of two machines are never
    joined."""
    groups: dict[tuple[str, str], list[Link]] = {}
    for link in links:
        groups.setdefault((link.artifact, link.machine), []).append(link)
    return [chain(artifact, machine, group) for (artifact, machine), group in groups.items()]


def chain(artifact: str, machine: str, links: Sequence[Link]) -> Chain:
    """Levels, bounds and changes of links in their order."""
    levels, variance, value = [0.0], [0.0], 0.0
    for link in links:
        value += link.value
        levels.append(value)
        variance.append(variance[-1] + link.sd**2)
    z = NORMAL.inv_cdf(0.5 + CONFIDENCE / 2)
    bounds = [
        (math.exp(v - z * math.sqrt(s)), math.exp(v + z * math.sqrt(s)))
        for v, s in zip(levels, variance, strict=True)
    ]
    gaps = tuple(
        i
        for i in range(1, len(links))
        if links[i].baseline not in (links[i - 1].candidate, links[i - 1].baseline)
    )
    lows, highs = tuple(low for low, _ in bounds), tuple(high for _, high in bounds)
    found = changes([link.value for link in links], [link.sd for link in links])
    return Chain(
        artifact, machine, tuple(links), tuple(math.exp(v) for v in levels), lows, highs, tuple(found), gaps
    )


def changes(values: Sequence[float], sds: Sequence[float]) -> list[Change]:
    """Segments of links whose mean is not zero; what lies between them is held to be
    zero. The penalty of a segment is what the most remarkable of all windows of a quiet
    history exceeds in one history of twenty (Bonferroni)."""
    n = len(values)
    if n == 0:
        return []
    penalty = NORMAL.inv_cdf(1 - FALSE_ALARMS / (n * (n + 1))) ** 2
    weight = [1 / sd**2 for sd in sds]
    terms = zip(
        weight,
        (w * x for w, x in zip(weight, values, strict=True)),
        (w * x * x for w, x in zip(weight, values, strict=True)),
        strict=True,
    )
    w_sum, wx_sum, wxx_sum = (list(accumulate(column, initial=0.0)) for column in zip(*terms, strict=True))

    def cost(first: int, last: int) -> float:
        """Of links first..last-1 about their weighted mean."""
        wx = wx_sum[last] - wx_sum[first]
        return float(wxx_sum[last] - wxx_sum[first] - wx * wx / (w_sum[last] - w_sum[first]))

    best, previous = [0.0], [(0, False)]
    candidates = [0]
    for end in range(1, n + 1):
        quiet = best[end - 1] + weight[end - 1] * values[end - 1] ** 2  # this link belongs to no change
        options = [(best[start] + cost(start, end) + penalty, start) for start in candidates]
        value, start = min(options)
        best.append(min(quiet, value))
        previous.append((end - 1, False) if quiet <= value else (start, True))
        candidates = [s for (total, s) in options if total - penalty <= best[end]] + [end]  # PELT's pruning
    found, end = [], n
    z = NORMAL.inv_cdf(0.5 + CONFIDENCE / 2)
    while end > 0:
        start, moved = previous[end]
        if moved:
            total, sd = sum(values[start:end]), math.sqrt(sum(s**2 for s in sds[start:end]))
            if abs(total) >= SMALLEST:
                found.append(
                    Change(
                        start, end - 1, math.exp(total), math.exp(total - z * sd), math.exp(total + z * sd)
                    )
                )
        end = start
    return found[::-1]


def load(paths: Sequence[Path]) -> list[Chain]:
    """`mlopt history`: the chains in these files and directories. Raises
    `UsageError`."""
    return chains(read_links(paths))
