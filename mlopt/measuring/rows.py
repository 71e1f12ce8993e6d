"""From generations to the `bench` rows of `run.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mlopt.measuring.generation import Generation, ProcessReport, reports_of, times_of
from mlopt.measuring.profiles import realised_precision
from mlopt.measuring.protocol import LOW_PERCENT
from mlopt.measuring.statistics import differences, percentile, ratio_of
from mlopt.records.bench import BenchRow, Conditions, GpuState, Histogram, Load, Operator, Ratio, Speedup

SHOWN_OPERATORS = 12
BINS = 40


def speedup(generations: list[Generation], index: int, against: int = 0) -> Ratio:
    """How many times faster contender `index` is, with its 95% interval."""
    both = [made.blocks for made in generations if index in made.blocks and against in made.blocks]
    return ratio_of([differences(blocks[against], blocks[index], LOW_PERCENT) for blocks in both]).inverse()


def bench_rows(
    names: Sequence[str],
    batch: int,
    generations: list[Generation],
    conditions: Conditions,
    parents: Mapping[int, int] | None = None,
    operators: Mapping[int, tuple[Operator, ...]] | None = None,
) -> list[BenchRow]:
    """One row a contender that lived through some generation; contender 0 is the
    baseline.

    `parents`: which contender another was made from, for its own share of the gain
    (`step`). `operators`: profiles, from which the precision is read back.
    """
    out = []
    for index, name in enumerate(names):
        times = times_of(generations, index)
        p50 = percentile(times, 50)
        if p50 is None:
            continue
        profile = (operators or {}).get(index, ())
        reports = reports_of(generations, index)
        first, cold = reports[0], generations[0].reports.get(index, ProcessReport())
        row = BenchRow(
            artifact=name,
            runtime=first.runtime,
            provider=first.provider,
            device=first.device,
            precision=realised_precision(profile) or first.precision,
            batch=batch,
            threads=conditions.threads,
            copies=conditions.copies,
            flush=conditions.flush,
            cuda_graph=conditions.cuda_graph,
            clock=first.clock,
            p10_s=percentile(times, LOW_PERCENT),
            p50_s=p50,
            p90_s=percentile(times, 90),
            p99_s=percentile(times, 99),
            p999_s=percentile(times, 99.9),
            throughput_per_s=batch / p50,
            peak_rss_bytes=_largest(report.peak_rss_bytes for report in reports),
            peak_device_bytes=_largest(report.peak_device_bytes for report in reports),
            load_s=cold.load_s,
            cold_start_s=(
                cold.load_s + cold.first_s if cold.load_s is not None and cold.first_s is not None else None
            ),
            warmup_s=_median(report.warmup_s for report in reports),
            settled=all(report.settled for report in reports),
            preempted=sum(report.preempted or 0 for report in reports),
            samples=len(times),
            rounds=sum(made.rounds for made in generations),
            epochs=sum(index in made.blocks for made in generations),
            load=load_of(generations),
            gpu=gpu_of(generations),
            histogram=histogram(times),
            operators=profile[:SHOWN_OPERATORS],
            speedup=None if index == 0 else speedup(generations, index).compared_with(names[0]),
            step=_step(names, generations, index, (parents or {}).get(index, 0)),
        )
        out.append(row)
    return out


def _step(names: Sequence[str], generations: list[Generation], index: int, parent: int) -> Speedup | None:
    """The speed-up against what a contender was made from; None where that is the
    baseline, whose speed-up stands already."""
    if not parent or not any(index in made.blocks and parent in made.blocks for made in generations):
        return None
    return speedup(generations, index, parent).compared_with(names[parent])


def load_of(generations: list[Generation]) -> Load:
    """How busy the machine was: the median over generations of what `load_between`
    says."""
    return Load(
        busy=_median(made.load.busy for made in generations),
        stolen=_median(made.load.stolen for made in generations),
        waited=_median(made.load.waited for made in generations),
        mhz=_median(made.load.mhz for made in generations),
        load=_median(made.load.load for made in generations),
    )


def gpu_of(generations: list[Generation]) -> GpuState | None:
    """The GPU as it was last read, with everything that throttled it; None without
    one."""
    read = [made.gpu for made in generations if made.gpu is not None]
    return (
        replace(read[-1], throttled=tuple(sorted({reason for one in read for reason in one.throttled})))
        if read
        else None
    )


def histogram(times: Sequence[float]) -> Histogram:
    """The distribution of calls, in seconds."""
    data = np.asarray(times)
    low, high = float(data.min()), float(np.percentile(data, 99))
    high = max(high, low * (1 + 1e-6))
    counts, _ = np.histogram(data, bins=BINS, range=(low, high))
    return Histogram(low, high, tuple(counts.tolist()), int((data > high).sum()))


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
