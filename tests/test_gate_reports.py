"""The verdict in every format: parsed back by something that is not ours, hostile names
and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from mlopt.judging import policy as policies
from mlopt.judging.policy import Policy
from mlopt.judging.verdict import Verdict
from mlopt.records.bench import BenchRow, Conditions, Histogram, Load, Operator, Ratio
from mlopt.records.edge import to_json
from mlopt.records.gate import Comparison, GateRecord, GateRow, SideArtifact, SideRecord
from mlopt.records.machine import Machine
from mlopt.report import formats
from mlopt.report.blocks import Bars, Distributions, Judged, Line, Point, Ratios, Shape, Step, Waterfall
from mlopt.report.charts import svg
from mlopt.report.explain import why_from_operators
from mlopt.report.verdict import verdict_document
from mlopt.report.write import html, markdown, write_gate
from tests.conftest import CHROMIUM, ROOT, Cli, browse
from tests.nets import mlp

HOSTILE = (
    '</script><script>alert(1)</script>"><img src=x onerror=alert(1)>%0A::error::x\n::set-output a|b,:\x00'
)


def verdict(name: str = "model.onnx") -> GateRecord:
    rows = (
        GateRow("latency", name, "s", 1e-3, 1.1e-3, 0.025, "FAIL", 1, Ratio(1.1, 1.08, 1.12, 0.99), 5.0),
        GateRow(
            "tail", name, "s", 1.2e-3, 1.3e-3, 0.1, "PASS", 1, Ratio(1.08, 0.9, 1.3, 0.99), 5.0, "not sure"
        ),
        GateRow(
            "throughput",
            name,
            "1/s",
            1000.0,
            900.0,
            0.05,
            "INCONCLUSIVE",
            1,
            Ratio(0.9, 0.0, float("inf"), 0.99),
            5.0,
            "about 9 s more would tell",
        ),
        GateRow("size", name, "bytes", 1000, 1000, 0.05, "PASS", None, Ratio(1, 1, 1, 1)),
        GateRow("accuracy", name, "%", 98.0, 97.5, 1.0, "PASS", None, None, 0.0, "+0.50 points lost"),
    )
    histogram = Histogram(1e-3, 2e-3, (1, 5, 2, 0), 1)
    bench = BenchRow(artifact=name, batch=1, p10_s=1e-3, p50_s=1e-3, p90_s=1e-3, load_s=0.1, throughput_per_s=1e3, peak_rss_bytes=5, samples=9,
                     epochs=2, settled=False)  # fmt: skip
    comparison = Comparison(
        name, "old", 1, 2, 0.05, Load(busy=0.9, stolen=0.02), (histogram, histogram), (bench, bench)
    )
    side = SideRecord(name, (SideArtifact(name, "ab" * 32, 1, "onnx"),))
    made = Verdict(
        kind="interleaved",
        rows=rows,
        candidate=side,
        baseline=side,
        policy=Policy(),
        conditions=Conditions(),
        environment=Machine({"torch": "2"}, "x", 2),
        created="2026-01-01T00:00:00Z",
        commit="abc",
        notes=(f"a note on {name}",),
        comparisons=(comparison,),
    )
    return made.record(f"mlopt gate {name!r}")


def test_junit_says_which_metric_and_why() -> None:
    suite = ElementTree.fromstring(formats.junit(verdict()).split("\n", 1)[1])
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
    }
    cases = {case.get("name"): case for case in suite}
    failure = cases["latency of model.onnx at batch 1"].find("failure")
    assert failure is not None
    assert (
        failure.get("message")
        == "FAIL: latency of model.onnx at batch 1: +10.00% (+8.00% to +12.00%), allowed +2.5%"
    )
    assert cases["throughput of model.onnx at batch 1"].find("error") is not None
    crashed = replace(verdict(), rows=(), reason="it crashed", verdict="INVALID")
    (case,) = ElementTree.fromstring(formats.junit(crashed).split("\n", 1)[1])
    assert case.find("failure") is not None


def test_github_annotations() -> None:
    lines = formats.github_annotations(verdict()).splitlines()
    assert lines[0].startswith("::error title=FAIL latency of model.onnx at batch 1::latency of")
    assert lines[1].startswith("::warning title=INCONCLUSIVE")
    assert lines[-1].startswith("::error title=mlopt gate%3A FAIL::FAIL: latency")


def test_gitlab_metrics_are_open_metrics() -> None:
    lines = formats.gitlab(verdict()).splitlines()
    assert lines[-1] == "# EOF"
    assert 'mlopt_latency_ratio{artifact="model.onnx",batch="1"} 1.1' in lines
    assert "mlopt_gate_passed 0" in lines
    assert all(len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0 for line in lines[:-1])


def test_hostile_names_stay_text() -> None:
    data = verdict(HOSTILE)
    page = html(verdict_document(data), to_json(data), "gate")
    shown = page.split('<script type="application/json"')[0]
    assert "<script>alert" not in shown
    assert "<img" not in shown
    assert json.loads(page.split('id="gate">')[1].split("</script>")[0])["rows"][0]["artifact"] == HOSTILE
    assert "\x00" not in formats.junit(data)
    ElementTree.fromstring(formats.junit(data).split("\n", 1)[1])
    for line in formats.github_annotations(data).splitlines():
        assert line.startswith(
            ("::error title=", "::warning title=", "::notice title=")
        )  # no line of its own making
    assert (
        len([line for line in formats.gitlab(data).splitlines() if line.startswith("mlopt_size_bytes")]) == 1
    )
    assert "<script" not in markdown(verdict_document(data)).split("## Policy")[0]


def test_the_report_doubts_itself_where_it_should() -> None:
    said = " ".join(verdict_document(verdict()).lines("How far to trust this"))
    for words in ("drifted by +5.0%", "90% busy", "hypervisor took 2.0%", "had not settled"):
        assert words in said


def test_every_chart_is_well_formed() -> None:
    charts = [
        Bars("b", "x", (Point("a<", 1.0, "1"), Point("b", 2.0, "2", 1.5, 2.5))),
        Ratios(
            "r",
            "x",
            (
                Judged("a", 0.1, -0.1, float("inf"), 0.05, "FAIL", "t"),
                Judged("b", -0.1, -0.2, 0.0, -0.05, "PASS", "<&>"),
            ),
        ),
        Distributions("d", "x", (Shape("a", 1.0, 2.0, (1, 2, 3), 0), Shape("b", 1.5, 1.5, (0,), 4))),
        Waterfall("w", "x", (Step("a", 0, 3.0, "3"), Step("b", 3.0, 1.0, "3x"), Step("c", 1.0, 1.2, "0.8x"))),
        Line("l", "x", ("start", "one"), (1.0, 1.1), (0.9, 1.0), (1.1, 1.2), ((1, "+10%"),)),
        Line("l", "x", ("only",), (1.0,), (1.0,), (1.0,)),
    ]
    for chart in charts:
        drawing = ElementTree.fromstring(svg(chart))
        for element in drawing.iter():
            for value in element.attrib.values():
                assert "nan" not in value
                assert "inf" not in value


def test_why_something_is_not_faster() -> None:
    def row(operators: list[Operator]) -> BenchRow:
        return BenchRow(artifact="m", provider="CUDAExecutionProvider", precision="fp32", batch=1, p50_s=1.0, throughput_per_s=1.0,
                        operators=tuple(operators))  # fmt: skip

    def op(kind: str, seconds: float, provider: str = "CUDA") -> Operator:
        return Operator(f"{kind}_1", kind, provider, None, seconds)

    assert why_from_operators(row([]), "int8") == []
    said = " ".join(
        why_from_operators(
            row(
                [op("QuantizeLinear", 2.0), op("Conv", 6.0), op("ReorderInput", 2.0), op("TopK", 1.0, "CPU")]
            ),
            "int8",
        )
    )
    for words in (
        "18% of its profiled time converting",
        "changing the layout",
        "1 operators run on CPU instead of CUDA (TopK_1",
        "made for int8, and most",
    ):
        assert words in said


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(tmp_path: Path, width: int) -> None:
    """It does not scroll sideways, every chart is drawn, and nothing of a hostile name
    runs."""
    write_gate(
        tmp_path,
        verdict("a-rather-long-artifact-name.int8-tensorrt.onnx<script>document.title='pwned'</script>"),
    )
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="report.html" style="width:{width}px;height:900px;border:0"></iframe><pre'
        ' id="out"></pre><script>f.onload = () => { const d = f.contentDocument; const e ='
        " d.documentElement;const flat = [...d.querySelectorAll('svg')].filter(s =>"
        " s.getBoundingClientRect().height < 20).length;out.textContent = `got ${e.scrollWidth} of"
        " ${e.clientWidth} with ${d.querySelectorAll('svg').length} ${flat}"
        " ${d.title.includes('pwned') && !d.title.includes('<')}`; }</script>"
    )
    done = browse(f"file://{probe}", tmp_path, "--allow-file-access-from-files")
    found = done.stdout.split("got ")[1].split("<")[0].split()
    assert int(found[0]) <= int(found[2]), f"{found} at {width}"
    assert int(found[4]) == 2
    assert found[5:] == ["0", "false"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's repository: a model that is built, its baseline with a manifest, a
    policy."""
    place = tmp_path_factory.mktemp("shop")
    for name in ("build", "baseline", "bin"):
        (place / name).mkdir()
    mlp(place / "build" / "model.onnx", seed=1)
    mlp(place / "slow.onnx", layers=6)
    (place / "gate.yaml").write_text("latency: {tolerance: 20%}\ntail: null\n")
    quick = place / "quick.py"  # a baseline is measured for half a second
    quick.write_text(
        "import sys\n"
        "if '--save-baseline' in sys.argv:\n"
        "    import mlopt.judging.stored\n"
        "    mlopt.judging.stored.STORED_S = 0.5\n"
        "from mlopt.cli.main import entry\n"
        "entry()\n"
    )
    for name in ("mlopt", "python3"):
        words = f"{sys.executable} {quick}" if name == "mlopt" else sys.executable
        (place / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (place / "bin" / name).chmod(0o755)
    return place


def in_shop(shop: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{shop / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        **variables,
    }
    return subprocess.run(
        ["bash", "-c", script],
        cwd=shop,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_ci_recipes_store_the_baseline_and_judge(shop: Path, tmp_path: Path) -> None:
    """The scripts of the GitHub workflow, the GitLab jobs and the action are run as
    they stand."""
    jobs = yaml.safe_load((ROOT / "recipes" / "ci" / "gitlab.yml").read_text())
    workflow = yaml.safe_load((ROOT / "recipes" / "ci" / "github.yml").read_text())
    accept = next(
        step for step in workflow["jobs"]["gate"]["steps"] if step.get("name") == "accept the new baseline"
    )["run"]
    assert (
        in_shop(
            shop, "git init -q . && set -e\n" + accept.replace(" && git push", ""), GITHUB_SHA="abc"
        ).returncode
        == 0
    )
    assert jobs["accept"]["script"] == accept.splitlines()[:2]
    tracked = in_shop(shop, "git ls-files").stdout.split()
    assert tracked == ["baseline/baseline.json", "baseline/model.onnx"]

    gate = jobs["gate"]
    done = in_shop(shop, "\n".join(gate["script"]), **gate["variables"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mlopt_gate_passed 1" in (shop / gate["artifacts"]["reports"]["metrics"]).read_text()
    assert ElementTree.parse(shop / gate["artifacts"]["reports"]["junit"]).getroot().get("failures") == "0"
    done = in_shop(shop, "\n".join(gate["script"]), **{**gate["variables"], "CANDIDATE": "slow.onnx"})
    assert done.returncode == 1
    assert "mlopt_gate_passed 0" in (shop / "metrics.txt").read_text()

    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = action["runs"]["steps"]
    assert set(step["env"].values()) == {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]}
    assert "${{" not in step["run"]  # inputs never become part of the script
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    values = {
        "CANDIDATE": "slow.onnx",
        "BASELINE": "baseline/baseline.json",
        "POLICY": "gate.yaml",
        "ARGUMENTS": "--budget 20 -q",
        "OUT": "out; touch x",
    }
    done = in_shop(shop, step["run"], **values, **files)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "::error title=mlopt gate" in done.stdout
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == "verdict=FAIL\n"
    assert "Status: **FAIL**" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert not (shop / "x").exists()


def test_the_policy_in_recipes_is_read(cli: Cli) -> None:
    policy = policies.load(ROOT / "recipes" / "ci" / "gate.yaml")
    assert policy == policies.build(Policy(), {"latency.floor_s": 2e-5})
    assert json.loads(cli("schema", "gate").stdout)["title"] == "Policy"


def test_report_renders_again(cli: Cli, tmp_path: Path) -> None:
    write_gate(tmp_path, verdict())
    for file in tmp_path.glob("report.*"):
        file.unlink()
    done = cli("report", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "report.html").is_file()
    assert cli("report", tmp_path, "--format", "junit").stdout.startswith("<?xml")
    assert json.loads(cli("report", tmp_path, "--format", "json").stdout)["verdict"] == "FAIL"
