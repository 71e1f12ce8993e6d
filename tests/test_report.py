"""The report: says the right things, escapes hostile strings, and stays readable in a browser at desktop and phone width."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mlopt.errors import UsageError
from mlopt.records import files as record
from mlopt.report.document import ENVIRONMENT, WHY, summarise
from mlopt.report.words import duration, number, size
from mlopt.report.write import render_html, render_markdown, write_reports
from tests.conftest import CHROMIUM, browse


def example(name: str = "model.onnx") -> dict[str, Any]:
    environment = {"versions": {"torch": "2"}, "cpu": "x", "cores": 2, "isa": [], "gpu": None, "load_at_start": [0.1, 0, 0]}
    run = record.new({"model": {"path": name}, "passes": []}, environment)
    run["status"] = "ok"
    run["compression"] = {
        "macs": {"before": 2e9, "after": 1e9}, "params": {"before": 4e6, "after": 3e6}, "bytes": {"before": 16e6, "after": 12e6}, "channels": {"before": 64, "after": 32},
    }  # fmt: skip
    run["accuracy"] = {"metric": "accuracy", "baseline": 98.0, "after": {"prune": 60.0, "distill": 97.5}, "samples": 100}
    parity = {
        "max_abs_error": 1e-6,
        "mean_abs_error": 1e-7,
        "max_error": 1e-6,
        "cosine": 1.0,
        "agreement": 1.0,
        "samples": 4,
        "finite": True,
        "metric": 97.0,
    }
    run["artifacts"] = [
        {"name": name, "format": "onnx", "precision": "fp32", "target": None, "path": "exports/a", "bytes": 12e6, "sha256": "0", "parity": parity}
    ]
    run["passes"] = [
        {"name": "prune", "pass": "prune", "status": "ok", "seconds": 1.0, "reason": "", "metrics": {"summary": "done"}, "config": {}},
        {"name": "distill", "pass": "distill", "status": "ok", "seconds": 1.0, "reason": "", "metrics": {}, "config": {}},
    ]
    base = {
        "runtime": "eager",
        "provider": "torch",
        "device": "cpu",
        "batch": 1,
        "threads": 1,
        "p90_s": None,
        "p99_s": None,
        "throughput_per_s": 1.0,
        "peak_rss_bytes": 1,
        "samples": 10,
        "rounds": 8,
    }
    run["bench"] = [
        {**base, "artifact": "eager dense", "p50_s": 8e-3, "speedup": None},
        {
            **base,
            "artifact": "eager compressed",
            "p50_s": 8.1e-3,
            "speedup": {"estimate": 0.99, "low": 0.97, "high": 1.01, "confidence": 0.95, "against": "eager dense"},
        },
        {
            **base,
            "artifact": name,
            "p50_s": 2e-3,
            "speedup": {"estimate": 4.0, "low": 3.9, "high": 4.1, "confidence": 0.95, "against": "eager dense"},
        },
    ]
    run["seconds"] = {"training": 1.0, "export": 1.0, "timing": 1.0, "mlopt": 0.1, "total": 3.1}
    return run


def test_headlines_in_their_order() -> None:
    lines = summarise(example()).headlines
    assert lines[0].startswith("Smaller: 50% fewer MACs (2 G to 1 G), 25% fewer parameters")
    assert lines[1].startswith("Faster: model.onnx runs 4.00x (3.90-4.10)")
    assert lines[2].startswith("Cost: 1.00 points at most of accuracy (dense 98.00%, lowest 97.00%")


def test_every_budget_is_shown_as_realised() -> None:
    facts = summarise(example()).facts(ENVIRONMENT)
    assert facts["What remains"] == "50.0% of the MACs, 75.0% of the parameters, 75.0% of the bytes, 50.0% of the channels"


def test_what_is_smaller_but_not_faster_is_named_with_a_reason() -> None:
    why = summarise(example()).lines(WHY)
    assert any(line.startswith("eager compressed is not faster") for line in why)
    assert not any(line.startswith("model.onnx is not faster") for line in why)


def test_failures_come_first() -> None:
    run = example()
    run["passes"][0] |= {"status": "failed", "reason": "it broke"}
    run["status"], run["error"] = "failed", {"message": "it broke", "hint": ""}
    assert summarise(run).headlines[0] == "FAILED: prune: it broke"
    assert sum("it broke" in line for line in summarise(run).headlines) == 1


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attrs))
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><script>alert(1)</script>", "a|b\n# c"])
def test_hostile_names_stay_text(name: str) -> None:
    page = Tags()
    html = render_html(example(name))
    page.feed(html)
    assert page.scripts == [{"type": "application/json", "id": "run"}]
    assert not page.handlers
    raw = html.split('id="run">')[1].split("</script>")[0]
    assert json.loads(raw)["recipe"]["model"]["path"] == name
    markdown = render_markdown(example(name)).split("## Recipe")[0]
    assert "<script" not in markdown
    assert "\n# c" not in markdown


def test_numbers_for_people() -> None:
    assert [size(n) for n in (None, 0, 999, 1500, 2.5e6, 3e9)] == ["-", "0 B", "999 B", "1.5 kB", "2.5 MB", "3.00 GB"]
    assert [duration(s) for s in (None, 2.0, 0.0123, 4.56e-5, 2e-8)] == ["-", "2 s", "12.3 ms", "45.6 µs", "20 ns"]
    assert [number(n) for n in (None, 12, 1234, 1.5e6, 2e9)] == ["-", "12", "1.23 k", "1.5 M", "2 G"]


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    for text in ("", "[]", '{"schema_version": 99}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(UsageError):
            record.read(tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_does_not_scroll_sideways(tmp_path: Path, width: int) -> None:
    """Measured in the browser, in a frame of the width in question: only tables and charts may scroll, inside their own box."""
    write_reports(tmp_path, example("a-rather-long-artifact-name.int8-tensorrt.onnx"))
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="report.html" style="width:{width}px;height:900px;border:0"></iframe><pre id="out"></pre><script>'
        "f.onload = () => { const d = f.contentDocument.documentElement; out.textContent = `got ${d.scrollWidth} of ${d.clientWidth}`; }</script>"
    )
    done = browse(f"file://{probe}", tmp_path, "--allow-file-access-from-files")
    found = done.stdout.split("got ")[1].split("<")[0].split(" of ")
    assert int(found[0]) <= int(found[1]), f"{found} at {width}"
