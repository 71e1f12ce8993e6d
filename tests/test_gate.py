"""The gate as its users meet it: real sessions, real processes killed, every verdict
and every bad input."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mlopt
from mlopt.api import compress
from mlopt.errors import RecipeError, UsageError
from mlopt.judging import policy as policies
from mlopt.judging.policy import Policy, effective
from mlopt.judging.run import Gate
from mlopt.judging.verdict import EXIT_CODES, Reason, Verdict, by_limit, by_values, worst
from mlopt.model.trust import Trust
from mlopt.records.bench import Conditions, GpuState, Load, Ratio
from mlopt.records.gate import GateRow, SideRecord
from mlopt.records.machine import Machine
from mlopt.runtimes.timing import Slowdown
from tests.conftest import ROOT, Cli, plain_cnn
from tests.nets import constant, endless, mlp, not_a_number


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """old.onnx; new.onnx, the same network with other weights; slow.onnx, half as long
    again; and wrong ones."""
    place = tmp_path_factory.mktemp("nets")
    mlp(place / "old.onnx")
    mlp(place / "new.onnx", seed=1)
    mlp(place / "slow.onnx", layers=5)
    mlp(place / "other_output.onnx", outputs=11)
    mlp(place / "other_input.onnx", inputs=65)
    mlp(place / "fixed.onnx", batch=4)
    constant(place / "constant.onnx")
    not_a_number(place / "nan.onnx")
    endless(place / "endless.onnx")
    return place


def judged(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    assert data["exit_code"] == done.returncode == EXIT_CODES[data["verdict"]]
    return data


def row_of(data: dict[str, Any], metric: str) -> dict[str, Any]:
    return next(row for row in data["rows"] if row["metric"] == metric)


def test_an_equal_network_passes(nets: Path, cli: Cli, tmp_path: Path) -> None:
    data = judged(
        cli(
            "gate",
            nets / "new.onnx",
            "--baseline",
            nets / "old.onnx",
            "-o",
            tmp_path / "out",
            "--max-latency",
            "10%",
            "--json",
        )
    )
    assert data["verdict"] == "PASS"
    assert data["kind"] == "interleaved"
    row = row_of(data, "latency")
    assert set(row) >= {
        "metric",
        "artifact",
        "baseline",
        "candidate",
        "ratio",
        "tolerance",
        "verdict",
        "seconds",
    }
    assert set(row["ratio"]) == {"estimate", "low", "high", "confidence"}
    assert row["ratio"]["low"] <= 1 <= row["ratio"]["high"] or abs(row["ratio"]["estimate"] - 1) < 0.05
    assert row["tolerance"] == pytest.approx(0.1)
    assert {row["metric"] for row in data["rows"]} == {"latency", "tail", "size", "memory"}
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"gate.json", "report.html", "report.md", "junit.xml", "samples.jsonl"}
    assert json.loads((tmp_path / "out" / "gate.json").read_text())["verdict"] == "PASS"
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    calls = sum(len(block) for line in samples for block in line["blocks"]["0"])
    assert calls == data["comparisons"][0]["bench"][0]["samples"]  # every call that was judged is there


def test_a_slower_network_fails_and_says_by_how_much(nets: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("gate", nets / "slow.onnx", "--baseline", nets / "old.onnx", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "FAIL: " in done.stdout
    data = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert data["exit_code"] == done.returncode == EXIT_CODES[data["verdict"]]
    row = row_of(data, "latency")
    assert row["verdict"] == "FAIL"
    assert row["ratio"]["low"] > 1.025


def test_a_faster_network_passes(nets: Path, cli: Cli) -> None:
    data = judged(cli("gate", nets / "old.onnx", "--baseline", nets / "slow.onnx", "--json"))
    assert data["verdict"] == "PASS"
    assert row_of(data, "latency")["ratio"]["high"] < 1


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ("nan.onnx", "NaN"),
        ("constant.onnx", "the same output whatever the input"),
        ("other_output.onnx", "outputs have the shapes (16, 11)"),
    ],
)
def test_wrong_outputs_are_invalid_before_anything_is_timed(nets: Path, candidate: str, words: str) -> None:
    verdict = Gate(Policy(), Trust()).judge(str(nets / candidate), str(nets / "old.onnx"))
    assert verdict.verdict == "INVALID"
    assert verdict.exit_code == 1
    assert verdict.reason is not None
    assert words in verdict.reason
    assert not verdict.rows


def test_a_baseline_of_another_signature_is_refused(nets: Path, cli: Cli) -> None:
    done = cli("gate", nets / "other_input.onnx", "--baseline", nets / "old.onnx")
    assert done.returncode == 2
    assert "takes x=batch,65" in done.stderr
    assert "hint:" in done.stderr


def test_a_fixed_batch_is_taken_where_none_was_asked_for(nets: Path) -> None:
    quick = policies.build(Policy(), {"latency.tolerance": 0.5, "budget_s": 5})
    verdict = Gate(quick, Trust()).judge(str(nets / "fixed.onnx"), str(nets / "old.onnx"))
    assert {row.batch for row in verdict.rows if row.metric == "latency"} == {4}
    with pytest.raises(UsageError, match="fixed at 4"):
        Gate(policies.build(quick, {"batch": (2,)}), Trust()).judge(
            str(nets / "fixed.onnx"), str(nets / "old.onnx")
        )


def _die_on_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, action: str, calls: int = 700
) -> None:
    """Worker processes of `name` do `action` at their n-th timed call: `sitecustomize`
    is read by every Python that starts."""
    code = """
        import os, sys, time
        def patch():
            import mlopt.runtimes.onnx_runtime as o
            bind = o.OnnxRuntime.bind
            def bound(self, *a):
                call, left = bind(self, *a), [CALLS]
                def dying():
                    left[0] -= 1
                    if left[0] <= 0 and self._path.name == NAME:
                        ACTION
                    call()
                return dying
            o.OnnxRuntime.bind = bound
        if any('mlopt.runtimes.worker' in word for word in sys.orig_argv):
            patch()
    """
    text = (
        textwrap.dedent(code)
        .replace("CALLS", str(calls))
        .replace("NAME", repr(name))
        .replace("ACTION", action)
    )
    (tmp_path / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_crash_on_run_700_is_invalid(nets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _die_on_call(
        monkeypatch, tmp_path, "new.onnx", "os.abort()", 100
    )  # each of several input sets counts for itself
    verdict = Gate(Policy(), Trust()).judge(str(nets / "new.onnx"), str(nets / "old.onnx"))
    assert verdict.verdict == "INVALID"
    assert verdict.reason is not None
    assert "stopped while it was timed" in verdict.reason
    assert "died" in verdict.reason


def test_a_candidate_that_hangs_is_invalid(
    nets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mlopt.runtimes.remote.LEAST_PATIENCE_S", 2.0)
    monkeypatch.setattr("mlopt.runtimes.remote.PATIENCE", 5)
    _die_on_call(monkeypatch, tmp_path, "new.onnx", "time.sleep(1000)", 50)
    verdict = Gate(Policy(), Trust()).judge(str(nets / "new.onnx"), str(nets / "old.onnx"))
    assert verdict.verdict == "INVALID"
    assert verdict.reason is not None
    assert "did not answer within" in verdict.reason


def test_a_candidate_that_hangs_on_its_first_answer(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlopt.judging.outputs.FIRST_ANSWER_S", 3.0)
    verdict = Gate(Policy(), Trust()).judge(str(nets / "endless.onnx"), str(nets / "old.onnx"))
    assert verdict.verdict == "INVALID"
    assert verdict.reason is not None
    assert "cannot be run" in verdict.reason


def test_a_baseline_that_crashes_is_nothing_to_compare_with(
    nets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _die_on_call(monkeypatch, tmp_path, "old.onnx", "os.abort()", 50)
    verdict = Gate(Policy(), Trust()).judge(str(nets / "new.onnx"), str(nets / "old.onnx"))
    assert verdict.verdict == "INCOMPARABLE"
    assert verdict.exit_code == 6


@pytest.fixture
def saved(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest beside its artifact."""
    monkeypatch.setattr("mlopt.judging.stored.STORED_S", 0.5)
    shutil.copy(nets / "old.onnx", tmp_path / "old.onnx")
    path = tmp_path / "baseline.json"
    Gate(Policy(), Trust()).save_baseline(str(tmp_path / "old.onnx"), path)
    return path


def test_a_manifest_is_rerun_while_its_artifact_is_there(nets: Path, saved: Path, tmp_path: Path) -> None:
    path = saved
    assert json.loads(path.read_text())["entries"][0]["path"] == "old.onnx"  # relative: it can be committed
    quick = policies.build(Policy(), {"latency.tolerance": 0.5})
    verdict = Gate(quick, Trust()).judge(str(nets / "new.onnx"), str(path))
    assert (verdict.kind, verdict.verdict) == ("interleaved", "PASS")
    shutil.copy(nets / "new.onnx", tmp_path / "old.onnx")
    with pytest.raises(UsageError, match="is not the artifact that"):
        Gate(quick, Trust()).judge(str(nets / "new.onnx"), str(path))


def test_stored_numbers_never_pass(nets: Path, saved: Path, tmp_path: Path) -> None:
    path = saved
    (tmp_path / "old.onnx").unlink()
    verdict = Gate(Policy(), Trust()).judge(str(nets / "new.onnx"), str(path))
    assert (verdict.kind, verdict.verdict, verdict.exit_code) == ("stored", "INCOMPARABLE", 6)
    data = json.loads(path.read_text())
    data["entries"][0]["numbers"][0]["p10_s"] /= 3
    path.write_text(json.dumps(data))
    verdict = Gate(Policy(), Trust()).judge(str(nets / "new.onnx"), str(path))
    assert (verdict.kind, verdict.verdict, verdict.exit_code) == ("stored", "FAIL", 1)
    data["entries"][0]["numbers"][0]["p10_s"] *= 30
    path.write_text(json.dumps(data))
    assert (
        Gate(Policy(), Trust()).judge(str(nets / "new.onnx"), str(path)).verdict == "INCOMPARABLE"
    )  # ten times faster: no PASS either
    data["environment"]["cpu"] = "another machine's"
    data["entries"][0]["numbers"][0]["p10_s"] /= 1000
    path.write_text(json.dumps(data))
    verdict = Gate(Policy(), Trust()).judge(str(nets / "new.onnx"), str(path))
    assert verdict.verdict == "INCOMPARABLE"
    assert verdict.reason is not None
    assert "another machine" in verdict.reason


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a network of stock layers: a, exported as it is; b, pruned by
    half."""
    torch.manual_seed(0)
    model, place = plain_cnn(), tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        compress(
            model,
            torch.randn(2, 3, 16, 16),
            out=place / name,
            prune=0.5 if name == "b" else None,
            bench=False,
        )
    return place


def test_run_directories_are_compared_name_by_name(runs: Path, nets: Path) -> None:
    """Exports of two runs; TorchScript is code and is left out with a word; `eager` is
    the run's own dense module."""
    quick = policies.build(Policy(), {"latency.tolerance": 1.0, "tail": None, "budget_s": 20, "memory": None})
    once = policies.build(quick, {"latency": None})  # no question is open after the first processes
    verdict = Gate(quick, Trust()).judge(str(runs / "b"), str(runs / "a"))
    assert verdict.verdict == "PASS"
    assert {row.artifact for row in verdict.rows} == {"model.onnx"}
    assert any("model.torchscript.pt was not judged" in note for note in verdict.notes)
    assert (
        next(row for row in verdict.rows if row.metric == "size").candidate
        < next(row for row in verdict.rows if row.metric == "size").baseline
    )
    both = Gate(once, Trust(trust_code=True)).judge(str(runs / "b"), str(runs / "a"))
    assert {row.artifact for row in both.rows} == {"model.onnx", "model.torchscript.pt"}
    assert {found.artifact for found in both.comparisons} == {"model.onnx", "model.torchscript.pt"}
    against = Gate(once, Trust()).judge(str(runs / "b"), "eager")
    assert against.verdict in ("PASS", "ANOMALOUS")
    assert against.baseline.artifacts[0].name == "eager dense"
    with pytest.raises(UsageError, match="no run directory"):
        Gate(quick, Trust()).judge(str(nets / "new.onnx"), "eager")
    with pytest.raises(UsageError, match="--artifact nothing"):
        Gate(quick, Trust()).judge(str(runs / "b"), str(runs / "a"), "nothing")


def test_accuracy_and_agreement(nets: Path, tmp_path: Path) -> None:
    """Labels are the old network's own answers: it has 100%, another has few of them
    right."""
    import onnxruntime

    x = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(nets / "old.onnx"), providers=["CPUExecutionProvider"])
    np.savez(tmp_path / "d.npz", x=x, y=session.run(None, {"x": x})[0].argmax(1))
    loose = {"latency.tolerance": 0.5, "tail": None, "memory": None, "budget_s": 5}
    drop = policies.build(Policy(), {**loose, "accuracy.max_drop": 1.0})
    verdict = Gate(drop, Trust(), data=str(tmp_path / "d.npz")).judge(
        str(nets / "new.onnx"), str(nets / "old.onnx")
    )
    row = next(row for row in verdict.rows if row.metric == "accuracy")
    assert (row.verdict, row.baseline) == ("FAIL", 100.0)
    assert row.candidate is not None
    assert row.candidate < 50
    with pytest.raises(UsageError, match="no labels"):
        Gate(drop, Trust()).judge(str(nets / "new.onnx"), str(nets / "old.onnx"))
    agree = policies.build(Policy(), {**loose, "parity.min_agreement": 0.9, "parity.max_error": 1e-3})
    verdict = Gate(agree, Trust()).judge(str(nets / "new.onnx"), str(nets / "old.onnx"))
    assert verdict.verdict == "INVALID"
    assert {row.unit for row in verdict.rows if row.metric == "parity"} == {"agreement", "max_error"}


def test_size_and_shapes(nets: Path) -> None:
    """Two shapes have two latencies; a larger file fails where the policy says so."""
    strict = policies.build(
        Policy(),
        {
            "size.tolerance": 0.01,
            "size.floor_bytes": 0,
            "latency.tolerance": 2.0,
            "tail": None,
            "batch": (1, 8),
        },
    )
    verdict = Gate(strict, Trust()).judge(str(nets / "slow.onnx"), str(nets / "old.onnx"))
    assert next(row for row in verdict.rows if row.metric == "size").verdict == "FAIL"
    assert {row.batch for row in verdict.rows if row.metric == "latency"} == {1, 8}


def test_what_is_too_large_to_be_real(nets: Path, tmp_path: Path) -> None:
    mlp(tmp_path / "tiny.onnx", hidden=16, layers=1)
    verdict = Gate(policies.build(Policy(), {"size": None, "memory": None}), Trust()).judge(
        str(nets / "slow.onnx"), str(tmp_path / "tiny.onnx")
    )
    assert verdict.verdict == "ANOMALOUS"
    assert verdict.exit_code == 1


def test_out_of_time_says_how_much_longer(nets: Path) -> None:
    """At the limit itself no budget is enough: the truth of new against old is 0, and
    so is the tolerance."""
    short = policies.build(
        Policy(), {"latency.tolerance": 0.0, "tail": None, "memory": None, "size": None, "budget_s": 3}
    )
    verdict = Gate(short, Trust()).judge(str(nets / "new.onnx"), str(nets / "old.onnx"))
    assert (verdict.verdict, verdict.exit_code) == ("INCONCLUSIVE", 5)
    assert "more" in verdict.rows[0].note


def test_a_full_disk_keeps_the_finished_samples(nets: Path, tmp_path: Path) -> None:
    """Files may grow to 300 kB: the first lines fit, a later one does not. What was
    finished is whole."""
    code = (
        "import resource,signal,sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (300_000,) * 2);from mlopt.cli.main import main;"
        " sys.exit(main(sys.argv[1:]))"
    )
    arguments = [
        "gate",
        nets / "new.onnx",
        "--baseline",
        nets / "old.onnx",
        "-o",
        tmp_path / "out",
        "--max-latency",
        "0%",
        "--budget",
        "20",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stderr
    assert "samples.jsonl" in done.stderr
    lines = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert lines
    assert all(json.loads(line)["blocks"] for line in lines)


def test_a_policy_is_read_strictly(tmp_path: Path, nets: Path, cli: Cli) -> None:
    file = tmp_path / "gate.yaml"
    for text, words in (
        ("latency:\n  tolerence: 2%\n", ":2: latency.tolerence: unknown key"),
        ("latency:\n  tolerance: 2\npolicy: 1\n", ":3: policy: unknown key"),
        ("latency:\n  tolerance: two\n", "write a percentage"),
        ("latency: {percentile: 0}\n", "greater than 0"),
        ("- latency\n", "a policy is a mapping"),
        ("", "the policy is empty"),
    ):
        file.write_text(text)
        with pytest.raises(RecipeError) as error:
            policies.load(file)
        assert words in error.value.message
    file.write_text("latency: {tolerance: 4%}\nsize: null\n")
    assert policies.load(file).latency.tolerance == 0.04
    assert policies.load(file).metrics() == ["latency", "tail", "memory"]
    file.write_text("latency:\n  tolerence: 2%\n")
    done = cli("gate", nets / "new.onnx", "--baseline", nets / "old.onnx", "--policy", file)
    assert done.returncode == 2
    assert "gate.yaml:2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gate",), "needs a CANDIDATE"),
        (("gate", "nothing.onnx", "--baseline", "nothing.onnx"), "no such file"),
        (("gate", "{new}", "--baseline", "nothing.json"), "no such file"),
        (("gate", "{new}", "--baseline", "{empty}"), "is empty"),
        (("gate", "{empty}", "--baseline", "{new}"), "is empty"),
        (("gate", "{new}", "--baseline", "{newer}"), "newer mlopt"),
        (("gate", "{new}", "--baseline", "{junk}"), "not a baseline manifest"),
        (("gate", "{new}", "--baseline", "{new}", "--max-latency", "2.5"), "latency.tolerance"),
        (("gate", "{new}", "--baseline", "{new}", "--confidence", "2"), "confidence"),
        (("gate", "{new}", "--baseline", "{new}", "--max-drop", "1"), "no labels"),
        (("report", "{empty}"), "holds no run.json"),
        (("history", "{empty}"), "no verdict on latency"),
        (("history", "nowhere"), "is not there"),
        (("bench", "--merge", "{newer}"), "newer mlopt"),
        (("bench", "--merge", "{junk}"), "not a record"),
        (("bench", "{new}", "--cuda-graph"), "--device cuda"),
        (("bench", "{new}", "--device", "cuda"), "CUDAExecutionProvider"),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: tuple[str, ...], words: str, nets: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "newer.json").write_text('{"schema_version": 99, "what": "mlopt baseline"}')
    (tmp_path / "junk.json").write_text("[1]")
    places = {
        "new": nets / "new.onnx",
        "empty": tmp_path / "empty",
        "newer": tmp_path / "newer.json",
        "junk": tmp_path / "junk.json",
    }
    done = cli(*(word.format(**places) for word in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_judges_live_modules() -> None:
    verdict = mlopt.gate(
        torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)),
        torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)),
        policies.build(Policy(), {"latency.tolerance": 0.5, "tail": None, "budget_s": 20}),
        inputs=torch.randn(1, 64),
    )
    assert verdict.verdict == "PASS"


def test_one_verdict_of_many() -> None:
    assert worst(["PASS", "INCONCLUSIVE", "FAIL", "INCOMPARABLE"]) == "FAIL"
    assert worst(["PASS", "INVALID", "FAIL"]) == "INVALID"
    assert worst([]) == "INCOMPARABLE"
    assert by_limit(110, 100, 0.1) == "PASS"
    assert by_limit(111, 100, 0.1) == "FAIL"
    assert by_values([1.2, 1.3, 1.4], 0.1) == "FAIL"
    assert by_values([1.0, 1.05, 1.4], 0.1) == "PASS"
    assert by_values([1.0, 1.3, 1.4], 0.1) == "INCONCLUSIVE"
    assert effective(0.025, 5e-5, 1e-3) == 0.05  # 50 microseconds of a millisecond are 5%
    assert effective(0.025, 5e-5, 0.0) == 0.025
    side = SideRecord("a", ())
    verdict = Verdict(
        kind="interleaved",
        rows=(
            GateRow("latency", "a", "s", 1.0, 1.2, 0.1, "FAIL", 1, Ratio(1.2, 1.1, 1.3, 0.99)),
            GateRow("size", "a", "bytes", 1, 1, 0.1, "PASS"),
        ),
        candidate=side,
        baseline=side,
        policy=Policy(),
        conditions=Conditions(),
        environment=Machine(),
    )
    assert verdict.exit_code == 1
    assert json.loads(json.dumps(verdict.to_json()))["rows"][0]["ratio"]["low"] == 1.1


def test_the_self_test_tells_slower_from_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both networks against themselves, and half as slow again: no verdict may be
    wrong. Its clock counts trials."""
    from mlopt.judging import selftest

    cases = (
        selftest.Case("A/A", "default", Slowdown(), "PASS"),
        selftest.Case("+50%", "default", Slowdown(every=0.5), "FAIL"),
    )
    monkeypatch.setattr(selftest, "CASES", cases)
    monkeypatch.setattr(selftest, "PROFILES", {"default": selftest.Profile(0.2, 4.0)})
    monkeypatch.setattr(selftest, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    rows = selftest.self_test(3.0)
    assert [row.trials for row in rows] == [2, 1]
    assert sum(row.wrong for row in rows) == 0


@pytest.mark.slow
def test_the_self_test_as_it_is_shipped() -> None:
    """As many comparisons as a minute allows: no verdict may be wrong. How many are
    inconclusive is a figure, and stands in benchmarks."""
    from mlopt.judging.selftest import self_test

    rows = self_test(60.0)
    assert rows[0].trials >= 2, "both networks at least once"
    assert sum(row.trials for row in rows) >= 3
    assert sum(row.wrong for row in rows) == 0


def test_a_throttled_gpu_makes_the_verdict_invalid() -> None:
    """What NVML said during any generation; there is no GPU here, so its words are
    scripted."""
    from mlopt.judging.rows import throttled
    from mlopt.measuring.duet import Duet
    from mlopt.measuring.generation import Generation

    cool, hot = Generation(gpu=GpuState()), Generation(gpu=GpuState(throttled=("thermal (hardware)",)))
    assert throttled(Duet([], [[cool, Generation(load=Load(busy=1.0))]], 1.0)) == []
    assert throttled(Duet([], [[cool, hot]], 1.0)) == [
        Reason("INVALID", "the GPU was throttled while it was timed: thermal (hardware)")
    ]
