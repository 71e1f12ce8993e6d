"""From epochs to the `bench` rows of `run.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mlopt.measuring.duet import times_of, told
from mlopt.measuring.protocol import LOW_PERCENT, Conditions, Epoch
from mlopt.measuring.statistics import Ratio, differences, percentile, ratio_of
from mlopt.records.bench import Operator

MATRIX_SHARE = 0.05
"""An operator below this share of the time says nothing of the precision that an artifact runs in."""


def speedup(epochs: list[Epoch], index: int, against: int = 0) -> Ratio:
    """How many times faster entry `index` is, with its 95% interval."""
    both = [epoch.blocks for epoch in epochs if index in epoch.blocks and against in epoch.blocks]
    return ratio_of([differences(blocks[against], blocks[index], LOW_PERCENT) for blocks in both]).inverse()


def bench_rows(
    names: Sequence[str],
    batch: int,
    epochs: list[Epoch],
    conditions: Conditions,
    parents: Mapping[int, int] | None = None,
    operators: Mapping[int, list[Operator]] | None = None,
) -> list[dict[str, Any]]:
    """One row an entry that lived through some epoch; entry 0 is the baseline.

    `parents`: which entry another was made from, for its own share of the gain (`step`). `operators`: profiles, from which provider and
    precision are read back.
    """
    out = []
    for index, name in enumerate(names):
        times = times_of(epochs, index)
        p50 = percentile(times, 50)
        if p50 is None:
            continue
        info = next(epoch.info[index] for epoch in epochs if index in epoch.info)
        profile = (operators or {}).get(index, [])
        parent = (parents or {}).get(index, 0)
        cold = epochs[0].info.get(index, {})
        row = {
            "artifact": name,
            "runtime": info.get("runtime"),
            "provider": info.get("provider"),
            "device": info.get("device"),
            "precision": realised_precision(profile) or info.get("precision"),
            "batch": batch,
            **conditions.to_json(),
            "clock": info.get("clock", "host"),
            "p10_s": percentile(times, LOW_PERCENT),
            "p50_s": p50,
            "p90_s": percentile(times, 90),
            "p99_s": percentile(times, 99),
            "p999_s": percentile(times, 99.9),
            "throughput_per_s": batch / p50,
            "peak_rss_bytes": max(told(epochs, index, "peak_rss_bytes"), default=None),
            "peak_device_bytes": max(told(epochs, index, "peak_device_bytes"), default=None),
            "load_s": cold.get("load_s"),
            "cold_start_s": cold["load_s"] + cold["first_s"] if "load_s" in cold and "first_s" in cold else None,
            "warmup_s": _median(told(epochs, index, "warmup_s")),
            "settled": all(told(epochs, index, "settled")),
            "preempted": sum(told(epochs, index, "preempted")),
            "samples": len(times),
            "rounds": sum(epoch.rounds for epoch in epochs),
            "epochs": sum(index in epoch.blocks for epoch in epochs),
            "load": load_of(epochs),
            "gpu": gpu_of(epochs),
            "histogram": histogram(times),
            "operators": [asdict(row) for row in profile[:SHOWN_OPERATORS]],
            "speedup": None if index == 0 else {**speedup(epochs, index).to_json(), "against": names[0]},
        }
        if parent and any(index in epoch.blocks and parent in epoch.blocks for epoch in epochs):
            row["step"] = {**speedup(epochs, index, parent).to_json(), "against": names[parent]}
        out.append(row)
    return out


def load_of(epochs: list[Epoch]) -> dict[str, float | None]:
    """How busy the machine was: the median over epochs of what `load_between` says."""
    keys = [key for key in epochs[0].load if key != "gpu"]
    return {key: _median([epoch.load[key] for epoch in epochs if epoch.load.get(key) is not None]) for key in keys}


def gpu_of(epochs: list[Epoch]) -> dict[str, Any] | None:
    """The GPU as it was last read, with everything that throttled it; None without one."""
    read = [epoch.load["gpu"] for epoch in epochs if epoch.load.get("gpu")]
    return {**read[-1], "throttled": sorted({reason for one in read for reason in one["throttled"]})} if read else None


SHOWN_OPERATORS = 12
BINS = 40


def histogram(times: Sequence[float]) -> dict[str, Any]:
    """{low_s, high_s, counts, beyond}: the calls between the fastest and the 99th percentile in equal bins, and how many were slower."""
    data = np.asarray(times)
    low, high = float(data.min()), float(np.percentile(data, 99))
    high = max(high, low * (1 + 1e-6))
    counts, _ = np.histogram(data, bins=BINS, range=(low, high))
    return {"low_s": low, "high_s": high, "counts": counts.tolist(), "beyond": int((data > high).sum())}


def realised_precision(operators: list[Operator]) -> str | None:
    """The precision in which most of the profiled time is spent; None when the profile does not say."""
    total = sum(row.seconds for row in operators)
    spent: dict[str, float] = {}
    for row in operators:
        if row.precision and row.seconds >= MATRIX_SHARE * total:
            spent[row.precision] = spent.get(row.precision, 0.0) + row.seconds
    return max(spent, key=lambda key: spent[key]) if spent else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
