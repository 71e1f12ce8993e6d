"""The chain of measured ratios: levels, bounds, changes; and what is never joined."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlopt.errors import UsageError
from mlopt.judging.history import changes, load
from mlopt.report.history import history_document
from mlopt.report.write import markdown
from tests.conftest import Cli

SD = 0.004


def write(place: Path, number: int, value: float, cpu: str = "x", sd: float = SD, **other: Any) -> None:
    """The verdict of commit `number` against the one before."""
    environment = {"versions": {"torch": "2"}, "cpu": cpu, "cores": 2, "isa": [], "gpu": None}
    bounds = [math.exp(value + z * sd) for z in (0.0, -1.959964, 1.959964)]
    ratio = dict(zip(("estimate", "low", "high"), bounds, strict=True)) | {"confidence": 0.95}
    row = {"metric": "latency", "artifact": "m", "batch": 1, "ratio": ratio, "verdict": "PASS"}
    sides = {
        name: {"artifacts": [{"name": "m", "sha256": f"{cpu}{at}"}]}
        for name, at in (("candidate", number), ("baseline", number - 1))
    }
    data = {"schema_version": 1, "verdict": "PASS", "kind": "interleaved", "commit": f"commit{number:03d}", "created": f"2026-01-{number + 1:02d}",
            "environment": environment, "rows": [row], **sides, **other}  # fmt: skip
    (place / f"{cpu}-{number:03d}").mkdir(parents=True)
    (place / f"{cpu}-{number:03d}" / "gate.json").write_text(json.dumps(data))


def test_levels_are_the_products_of_links(tmp_path: Path) -> None:
    for number, value in enumerate([0.0, 0.05, -0.02], 1):
        write(tmp_path, number, value)
    (chain,) = load([tmp_path])
    assert chain.levels == pytest.approx([1.0, 1.0, math.exp(0.05), math.exp(0.03)])
    half = (math.log(chain.highs[3]) - math.log(chain.lows[3])) / 2
    assert half == pytest.approx(1.959964 * SD * math.sqrt(3), rel=1e-3)  # variances add up along the chain
    assert chain.gaps == ()


def test_sudden_and_creeping_changes_are_found_with_their_intervals() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(0, SD, 40)
    values[10] += 0.05
    values[20:28] += 0.012  # no link of these is remarkable by itself; together they are 10%
    found = changes(values.tolist(), [SD] * 40)
    assert (found[0].first, found[0].last) == (10, 10)
    assert found[0].low < math.exp(0.05) < found[0].high
    creeping = found[1:]
    assert all(c.first >= 19 and c.last <= 29 for c in creeping)
    assert math.prod(c.ratio for c in creeping) == pytest.approx(math.exp(0.096), abs=0.03)


def test_quiet_histories_stay_quiet() -> None:
    """Fifty histories of forty commits without a change: a false one in at most two of
    them."""
    draw = np.random.default_rng(1)
    false = sum(bool(changes(draw.normal(0, SD, 40).tolist(), [SD] * 40)) for _ in range(50))
    assert false <= 2
    assert changes([], []) == []
    assert changes([0.1], [SD])[0].ratio == pytest.approx(math.exp(0.1))


def test_a_noisy_link_is_no_change() -> None:
    """The same 5% is a change where it was measured well, and none where it was not."""
    values = [0.0] * 10 + [0.05] + [0.0] * 10
    assert changes(values, [SD] * 21)
    assert not changes(values, [SD] * 10 + [0.04] + [SD] * 10)


def test_machines_are_never_joined_and_gaps_are_said(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path, number, 0.0)
        write(tmp_path, number, 0.0, cpu="y")
    write(tmp_path, 5, 0.0)  # its baseline was never judged
    chains = load([tmp_path])
    assert sorted(len(chain.links) for chain in chains) == [2, 3]
    longer = max(chains, key=lambda chain: len(chain.links))
    assert longer.gaps == (2,)
    assert "may miss a step" in markdown(history_document(chains))


def test_what_is_no_link(tmp_path: Path) -> None:
    """Stored numbers, crashes, and other JSON in the directory are not measured
    ratios."""
    write(tmp_path, 1, 0.0)
    write(tmp_path, 2, 0.3, kind="stored")
    (tmp_path / "other.json").write_text("[1, 2]")
    (chain,) = load([tmp_path])
    assert len(chain.links) == 1
    write(tmp_path, 3, 0.0, rows="broken")
    with pytest.raises(UsageError, match="not a verdict"):
        load([tmp_path])


def test_newer_results_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 1, 0.0, schema_version=99)
    with pytest.raises(UsageError, match="newer mlopt"):
        load([tmp_path])


def test_the_command(tmp_path: Path, cli: Cli) -> None:
    for number, value in enumerate([0.0, 0.0, 0.08, 0.0], 1):
        write(tmp_path / "h", number, value)
    done = cli("history", tmp_path / "h", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "slower by +8.33%" in done.stdout
    assert "at commit003" in done.stdout
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()
    assert "slower by" in (tmp_path / "out" / "report.md").read_text()
    data = json.loads(cli("history", tmp_path / "h", "--json").stdout)
    assert data["chains"][0]["changes"][0]["first"] == 2
