"""The report: says the right things, escapes hostile strings, and stays readable in a
browser at desktop and phone width."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlopt.errors import UsageError
from mlopt.records.bench import BenchRow, Speedup
from mlopt.records.edge import to_json
from mlopt.records.machine import Machine
from mlopt.records.run import (
    Accuracy,
    Amount,
    ArtifactEntry,
    Compression,
    Failure,
    Finding,
    Parity,
    PassEntry,
    RunRecord,
    Seconds,
    read,
)
from mlopt.report.run import ENVIRONMENT, WHY, run_document
from mlopt.report.words import duration, number, size
from mlopt.report.write import html, markdown, write_reports
from tests.conftest import CHROMIUM, browse


def example(name: str = "model.onnx") -> RunRecord:
    against = {"confidence": 0.95, "against": "eager dense"}
    compressed = Speedup(estimate=0.99, low=0.97, high=1.01, **against)
    onnx = Speedup(estimate=4.0, low=3.9, high=4.1, **against)
    measured = {
        "runtime": "eager",
        "provider": "torch",
        "device": "cpu",
        "batch": 1,
        "throughput_per_s": 1.0,
        "rounds": 8,
    }
    return RunRecord(
        status="ok",
        environment=Machine({"torch": "2"}, cpu="x", cores=2, load_at_start=(0.1, 0.0, 0.0)),
        recipe={"model": {"path": name}, "passes": []},
        compression=Compression(Amount(4e6, 3e6), Amount(2e9, 1e9), Amount(16e6, 12e6), Amount(64, 32)),
        accuracy=Accuracy("accuracy", 98.0, {"prune": 60.0, "distill": 97.5}, 100),
        artifacts=(
            ArtifactEntry(
                name,
                "onnx",
                "fp32",
                None,
                "exports/a",
                12_000_000,
                "0",
                Parity(1e-6, 1e-7, 1e-6, 1.0, 1.0, 4, True, 97.0),
            ),
        ),
        passes=(
            PassEntry("prune", "prune", status="ok", seconds=1.0, summary="done", role="trunk"),
            PassEntry("distill", "distill", status="ok", seconds=1.0, role="trunk", trains=True),
        ),
        bench=(
            BenchRow(artifact="eager dense", p50_s=8e-3, **measured),
            BenchRow(artifact="eager compressed", p50_s=8.1e-3, speedup=compressed, **measured),
            BenchRow(artifact=name, p50_s=2e-3, speedup=onnx, **measured),
        ),
        seconds=Seconds(1.0, 1.0, 1.0, 0.1, 3.1),
    )


def render_html(record: RunRecord) -> str:
    return html(run_document(record), to_json(record), "run")


def render_markdown(record: RunRecord) -> str:
    return markdown(run_document(record))


def test_headlines_in_their_order() -> None:
    lines = run_document(example()).headlines
    assert lines[0].startswith("Smaller: 50% fewer MACs (2 G to 1 G), 25% fewer parameters")
    assert lines[1].startswith("Faster: model.onnx runs 4.00x (3.90-4.10)")
    assert lines[2].startswith("Cost: 1.00 points at most of accuracy (dense 98.00%, lowest 97.00%")


def test_every_budget_is_shown_as_realised() -> None:
    facts = run_document(example()).properties(ENVIRONMENT)
    assert (
        facts["What remains"]
        == "50.0% of the MACs, 75.0% of the parameters, 75.0% of the bytes, 50.0% of the channels"
    )


def test_what_is_smaller_but_not_faster_is_named_with_a_reason() -> None:
    why = run_document(example()).lines(WHY)
    assert any(line.startswith("eager compressed is not faster") for line in why)
    assert not any(line.startswith("model.onnx is not faster") for line in why)


def test_what_a_pass_found_is_said_in_its_own_words() -> None:
    """The report knows no pass: sentences come from the record, warnings first, and a
    slow artifact has the reason that its pass gave."""
    run = example()
    found = (
        Finding("note", "conv1", "conv1 is odd."),
        Finding("slow", "eager compressed", "its toes are cold"),
        Finding("warning", "x", "beware."),
    )
    toy = PassEntry("toy", "toy", status="ok", findings=found)
    why = run_document(replace(run, passes=(*run.passes, toy))).lines(WHY)
    assert why[0].endswith("(0.97-1.01)): its toes are cold.")
    assert why[1:3] == ("toy: beware.", "toy: conv1 is odd.")


def test_failures_come_first() -> None:
    run = example()
    broken = replace(run.passes[0], status="failed", reason="it broke")
    run = replace(run, passes=(broken, *run.passes[1:]), status="failed", error=Failure("it broke"))
    assert run_document(run).headlines[0] == "FAILED: prune: it broke"
    assert sum("it broke" in line for line in run_document(run).headlines) == 1


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attrs))
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</script><script>alert(1)</script>",
        "a|b\n# c",
    ],
)
def test_hostile_names_stay_text(name: str) -> None:
    page = Tags()
    page_text = render_html(example(name))
    page.feed(page_text)
    assert page.scripts == [{"type": "application/json", "id": "run"}]
    assert not page.handlers
    raw = page_text.split('id="run">')[1].split("</script>")[0]
    assert json.loads(raw)["recipe"]["model"]["path"] == name
    markdown = render_markdown(example(name)).split("## Recipe")[0]
    assert "<script" not in markdown
    assert "\n# c" not in markdown


def test_numbers_for_people() -> None:
    assert [size(n) for n in (None, 0, 999, 1500, 2.5e6, 3e9)] == [
        "-",
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.00 GB",
    ]
    assert [duration(s) for s in (None, 2.0, 0.0123, 4.56e-5, 2e-8)] == [
        "-",
        "2 s",
        "12.3 ms",
        "45.6 µs",
        "20 ns",
    ]
    assert [number(n) for n in (None, 12, 1234, 1.5e6, 2e9)] == ["-", "12", "1.23 k", "1.5 M", "2 G"]


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    for text in ("", "[]", '{"schema_version": 99}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(UsageError):
            read(tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_does_not_scroll_sideways(tmp_path: Path, width: int) -> None:
    """Measured in the browser, in a frame of the width in question: only tables and
    charts may scroll, inside their own box."""
    write_reports(tmp_path, example("a-rather-long-artifact-name.int8-tensorrt.onnx"))
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="report.html" style="width:{width}px;height:900px;border:0"></iframe><pre'
        ' id="out"></pre><script>f.onload = () => { const d = f.contentDocument.documentElement;'
        " out.textContent = `got ${d.scrollWidth} of ${d.clientWidth}`; }</script>"
    )
    done = browse(f"file://{probe}", tmp_path, "--allow-file-access-from-files")
    found = done.stdout.split("got ")[1].split("<")[0].split(" of ")
    assert int(found[0]) <= int(found[1]), f"{found} at {width}"
