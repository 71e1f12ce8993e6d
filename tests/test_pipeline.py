"""The main job in processes of its own: the artifacts, the same run again, kills,
Ctrl-C, and every bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import mlopt
from mlopt.artifact import sha256_file
from mlopt.measuring.environment import version_of
from recipes.datasets import digits_arrays
from tests.conftest import ROOT, Cli, plain_cnn, run_json
from tests.test_golden_records import golden, key_paths

ALLOW = ("--allow-class", "recipes.networks.*")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model_pt: Path, digits_npz: Path) -> Path:
    """One whole run, shared by the tests that only look at it."""
    place = tmp_path_factory.mktemp("run")
    done = subprocess.run(
        [sys.executable, "-m", "mlopt", "compress", model_pt, "--prune", "0.5", "--distill", "2", "--lr", "2e-3", "--quantize", "int8,fp16",
         "--export", "torchscript,onnx,tensorrt", "--data", digits_npz, "--budget", "1", *ALLOW, "--store", place / "store", "-o", place / "run"],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "x=batch,1,16,16" in done.stderr.splitlines()[0]
    return place / "run"


def test_everything_the_contract_names_is_there(finished: Path) -> None:
    names = {path.name for path in (finished / "exports").iterdir()}
    assert names == {
        "model.torchscript.pt",
        "model.onnx",
        "model.int8-cpu.onnx",
        "model.int8-tensorrt.onnx",
        "model.fp16.onnx",
        "model.rtx.engine",
    }
    assert {"recipe.yaml", "run.json", "report.html", "report.md", "model", "exports"} <= {
        path.name for path in finished.iterdir()
    }
    run = run_json(finished)
    assert golden("run") <= key_paths(run), "a key that scripts read is gone"
    assert run["status"] == "ok"
    assert [entry["status"] for entry in run["passes"]] == ["ok"] * 8
    assert abs(run["compression"]["macs"]["after"] / run["compression"]["macs"]["before"] - 0.5) <= 0.03
    assert run["accuracy"]["baseline"] - run["accuracy"]["after"]["distill"] < 5
    for artifact in run["artifacts"]:
        path = finished / artifact["path"]
        assert path.stat().st_size == artifact["bytes"]
        assert sha256_file(path) == artifact["sha256"]
        if artifact["format"] != "tensorrt":
            assert artifact["parity"]["metric"] > 80
            assert artifact["parity"]["cosine"] > 0.95
    rows = {row["artifact"]: row for row in run["bench"]}
    assert set(rows) == {"eager dense", "eager compressed", *names} - {"model.rtx.engine"}
    # An ONNX Runtime process holds no torch: were the parent's memory counted, both
    # would be alike.
    assert rows["model.onnx"]["peak_rss_bytes"] < rows["eager dense"]["peak_rss_bytes"] / 2
    for row in rows.values():
        assert row["p50_s"] > 0
        assert row["peak_rss_bytes"] > 1e7
        assert (
            row["speedup"] is None
            or row["speedup"]["low"] <= row["speedup"]["estimate"] <= row["speedup"]["high"]
        )
    assert any("model.rtx.engine" in line for line in run["not_measured"])
    assert not list(finished.rglob("*.pkl"))


def test_the_engine_is_an_engine(finished: Path) -> None:
    plan = (finished / "exports" / "model.rtx.engine").read_bytes()
    assert plan.startswith(b"vtrt")
    assert version_of("tensorrt-rtx") in run_json(finished)["passes"][-1]["metrics"]["version"]


def test_the_bundle_gives_the_module_back(finished: Path, digits_npz: Path) -> None:
    module = mlopt.load(finished, allow_class=["recipes.networks.*"])
    with np.load(digits_npz) as data:
        x, y = torch.from_numpy(data["x_val"]), torch.from_numpy(data["y_val"])
    with torch.no_grad():
        accuracy = 100 * float((module(x).argmax(-1) == y).double().mean())
        script = torch.jit.load(str(finished / "exports" / "model.torchscript.pt"))
        assert torch.allclose(script(x), module(x), atol=1e-5)
    assert accuracy == pytest.approx(run_json(finished)["accuracy"]["after"]["distill"])


def test_onnx_takes_any_batch_and_tells_nothing_of_this_machine(finished: Path, digits_npz: Path) -> None:
    import onnxruntime

    for name in ("model.onnx", "model.int8-cpu.onnx", "model.int8-tensorrt.onnx", "model.fp16.onnx"):
        path = finished / "exports" / name
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for n in (1, 3, 7):
            assert session.run(None, {"x": np.zeros((n, 1, 16, 16), np.float32)})[0].shape == (n, 10)
        assert str(ROOT).encode() not in path.read_bytes(), "a path of this machine is in the file"
    kinds = {node.op_type for node in onnx.load(str(finished / "exports" / "model.int8-cpu.onnx")).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_the_report_says_first_what_matters(finished: Path) -> None:
    text = (finished / "report.md").read_text()
    assert (
        text.index("Smaller:")
        < text.index("Faster:")
        < text.index("Cost:")
        < text.index("## Artifacts")
        < text.index("## Environment")
    )
    page = (finished / "report.html").read_text()
    assert page.count("<svg") == 4  # size, latency, accuracy, and how the time fell
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_the_same_recipe_redoes_nothing_and_in_another_place_gives_the_same(
    finished: Path, cli: Cli, tmp_path: Path
) -> None:
    first = run_json(finished)
    hashes = {path.name: sha256_file(path) for path in (finished / "exports").iterdir()}
    again = cli("run", finished / "recipe.yaml", "--store", finished.parent / "store", "-o", finished)
    assert again.returncode == 0, again.stderr
    second = run_json(finished)
    assert {entry["status"] for entry in second["passes"]} == {"cached"}
    assert second["bench"] == first["bench"]
    assert {path.name: sha256_file(path) for path in (finished / "exports").iterdir()} == hashes
    elsewhere = cli("run", finished / "recipe.yaml", "--store", tmp_path / "store", "-o", tmp_path / "other")
    assert elsewhere.returncode == 0, elsewhere.stderr
    other = run_json(tmp_path / "other")
    for a, b in zip(first["passes"], other["passes"], strict=True):
        if a["pass"] != "tensorrt":
            assert a["output_sha256"] == b["output_sha256"], a["name"]
    old, new = (
        torch.jit.load(str(place / "exports" / "model.torchscript.pt"))
        for place in (finished, tmp_path / "other")
    )
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(old(x), new(x))


def test_a_factory_draws_the_same_weights_again(cli: Cli, tmp_path: Path) -> None:
    """Weights that a factory makes up are made up from the recipe's seed, or nothing
    after it could be repeated or resumed."""
    command = [
        "compress",
        "recipes.networks:digits_resnet",
        "--arch-arg",
        "width=16",
        "--prune",
        "0.5",
        "--export",
        "onnx",
        "--input",
        "batch,1,16,16",
        "--no-bench",
    ]

    def outputs(place: str, *more: str) -> list[str]:
        assert cli(*command, *more, "--store", f"{place}-store", "-o", place).returncode == 0
        return [entry["output_sha256"] for entry in run_json(tmp_path / place)["passes"]]

    first = outputs("a")
    assert outputs("b") == first
    assert outputs("a") == first
    assert {entry["status"] for entry in run_json(tmp_path / "a")["passes"]} == {"cached"}
    assert outputs("c", "--seed", "1") != first


def slow_recipe(tmp_path: Path, model_pt: Path, digits_npz: Path) -> Path:
    text = f"""
model: {{path: {model_pt}, allow_class: ["recipes.networks.*"]}}
data: {digits_npz}
passes:
  - {{pass: prune}}
  - {{pass: finetune, epochs: 2}}
  - {{pass: torchscript}}
  - {{pass: onnx}}
bench: {{enabled: false}}
"""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "mlopt",
        "run",
        str(recipe),
        "--store",
        str(out.parent / "store"),
        "-o",
        str(out),
    ]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(child: subprocess.Popen[str], words: str) -> None:
    """Until a line with these words was printed."""
    assert child.stderr is not None
    for line in child.stderr:
        if words in line:
            return
    raise AssertionError(f"the run ended without saying {words}")


def test_killed_anywhere_and_run_again(tmp_path: Path, model_pt: Path, digits_npz: Path, cli: Cli) -> None:
    """SIGKILL while the second, third and fourth pass is being made; what was finished
    is not redone, and the result is the clean one."""
    recipe = slow_recipe(tmp_path, model_pt, digits_npz)
    clean = cli("run", recipe, "--store", tmp_path / "other-store", "-o", tmp_path / "clean")
    assert clean.returncode == 0, clean.stderr
    for finished in (1, 2, 3):  # the line of a finished pass is the signal that the next one has begun
        child = start(recipe, tmp_path / "killed")
        wait_for(child, f"[{finished}/4]")
        child.kill()
        child.wait()
    done = cli("run", recipe, "--store", tmp_path / "store", "-o", tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    a, b = run_json(tmp_path / "clean"), run_json(tmp_path / "killed")
    assert [e["output_sha256"] for e in a["passes"] if e["pass"] != "torchscript"] == [
        e["output_sha256"] for e in b["passes"] if e["pass"] != "torchscript"
    ]
    assert b["passes"][0]["status"] == "cached"
    assert not list((tmp_path / "store").glob("tmp-*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_leaves_a_directory_that_goes_on(
    tmp_path: Path, model_pt: Path, digits_npz: Path, cli: Cli, number: int, code: int
) -> None:
    recipe = slow_recipe(tmp_path, model_pt, digits_npz)
    child = start(recipe, tmp_path / "run")
    wait_for(child, "[1/4] prune  ok")
    child.send_signal(number)
    assert child.wait(timeout=60) == code
    assert run_json(tmp_path / "run")["status"] == "interrupted"
    done = cli("run", recipe, "--store", tmp_path / "store", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert next(entry["status"] for entry in run_json(tmp_path / "run")["passes"]) == "cached"


def test_compress_works_as_it_stands_on_a_stock_pickle(cli: Cli, tmp_path: Path) -> None:
    torch.save(plain_cnn(1), tmp_path / "model.pt")
    done = cli("compress", "model.pt", "--prune", "0.5", "--budget", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    assert "input  x=batch,1,28,28" in done.stderr.splitlines()[0]
    assert "inferred" in done.stderr.splitlines()[0]
    run = json.loads(done.stdout)
    assert run["status"] == "ok"
    assert run["accuracy"] is None
    assert any("accuracy was not measured" in note for note in run["notes"])
    assert (tmp_path / "model-mlopt" / "exports" / "model.onnx").is_file()
    exported = cli(
        "export",
        "model-mlopt/exports/model.onnx",
        "--to",
        "tensorrt",
        "--quantize",
        "int8,fp16",
        "--no-bench",
        "-o",
        "leaves",
    )
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "leaves" / "exports" / "model.rtx.engine").read_bytes().startswith(b"vtrt")
    compared = {
        artifact["name"]: artifact["parity"] for artifact in run_json(tmp_path / "leaves")["artifacts"]
    }
    assert {name for name, parity in compared.items() if parity is None} == {"model.rtx.engine"}, (
        "files are compared with the file"
    )
    measured = cli(
        "bench", "model.pt", "model-mlopt", "model-mlopt/exports/model.onnx", "--budget", "0.2", "--json"
    )
    assert measured.returncode == 0, measured.stderr
    rows = json.loads(measured.stdout)["bench"]
    assert [row["runtime"] for row in rows] == ["eager", "eager", "onnxruntime"]
    other = cli("bench", "model.pt", "model-mlopt/exports/model.onnx", "--input", "batch,1,32,32")
    assert other.returncode == 2
    assert "one signature" in other.stderr


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    torch.save(plain_cnn(), tmp_path / "model.pt")
    np.savez(tmp_path / "labels.npz", x=np.zeros((20, 3, 16, 16), np.float32), y=np.full(20, 12))
    torch.save(nn.Linear(8, 3), tmp_path / "tiny.pt")
    torch.save(plain_cnn().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("not a model")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:2000])
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.py").write_text("def make():\n    raise RuntimeError('no weights today')\n")
    return tmp_path


BAD: list[tuple[list[str], int, str]] = [
    (["compress", "absent.pt", "--prune", "0.5"], 2, "no such file"),
    (["compress", "text.pt", "--prune", "0.5"], 2, "not a model file"),
    (["compress", "cut.pt", "--prune", "0.5"], 2, "truncated"),
    (["compress", "weights.pt", "--prune", "0.5"], 2, "--arch"),
    (["compress", "broken:make", "--prune", "0.5"], 2, "no weights today"),
    (["compress", "model.pt", "--prune", "0.5", "--input", "1,4,16,16"], 2, "rejects"),
    (["compress", "model.pt", "--prune", "0.5", "--input", "1,3,16,16:int64"], 2, "rejects"),
    (["compress", "model.pt", "--prune", "0.5", "--input", "1,3,16,0"], 2, "neither a size nor a word"),
    (
        ["compress", "model.pt", "--prune", "0.5", "--data", "labels.npz"],
        2,
        "12, but the model has 10 outputs",
    ),
    (["compress", "model.pt", "--prune", "0.5", "--data", "absent.npz"], 2, "no such file"),
    (["compress", "model.pt", "--prune", "1.5"], 2, "between 0 and 1"),
    (["compress", "model.pt", "--prune", "-1"], 2, "between 0 and 1"),
    (["compress", "tiny.pt", "--prune", "0.5"], 2, "declined"),
    (["compress", "model.pt", "--prune", "0.5", "-o", "file"], 2, "is a file"),
    (["compress", "model.pt", "--prune", "0.5", "-o", "/proc/nowhere"], 2, "-o"),
    (["compress", "model.pt", "--export", "openvino"], 4, "openvino"),
    (["compress", "model.pt", "--quantize", "int3"], 2, "int8"),
    (["compress", "model.pt", "--finetune", "3"], 2, "needs training data"),
    (["compress", "model.pt", "--prune", "0.5", "--device", "cuda"], 2, "CUDA"),
    (["compress", "model.pt", "--prune", "0.5", "--arch-arg", "width"], 2, "NAME=VALUE"),
    (["compress", "model.pt", "--nonsense"], 2, "nonsense"),
    (["run", "absent.yaml"], 2, "absent.yaml"),
    (["report", "."], 2, "run.json"),
    (["bench", "model.pt", "absent.onnx"], 2, "no such file"),
    (["inspect", "text.pt"], 2, "not a model file"),
    (["view", "absent.onnx"], 2, "no such file"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_gets_one_clear_error(
    stock: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    """In this process, because a fresh one costs seconds; `test_killed_...` and others
    use the real one."""
    from mlopt.cli.main import main

    monkeypatch.chdir(stock)
    monkeypatch.syspath_prepend(str(stock))
    before = {path.name: path.read_bytes() for path in stock.iterdir() if path.is_file()}
    assert main(arguments) == code
    err = capfd.readouterr().err
    assert err.count("error:") == 1, err
    assert "hint:" in err, err
    assert "Traceback" not in err
    assert words in err, err
    assert {name: (stock / name).read_bytes() for name in before} == before


def test_a_refused_model_leaves_an_earlier_run_as_it_was_and_no_new_directory(stock: Path, cli: Cli) -> None:
    assert (
        cli(
            "compress",
            "model.pt",
            "--prune",
            "0.5",
            "--export",
            "onnx",
            "--input",
            "batch,3,16,16",
            "--no-bench",
            "-o",
            "out",
        ).returncode
        == 0
    )
    before = {path: path.read_bytes() for path in (stock / "out").iterdir() if path.is_file()}
    assert cli("compress", "text.pt", "--prune", "0.5", "-o", "out").returncode == 2
    assert {path: path.read_bytes() for path in before} == before
    assert cli("compress", "text.pt", "--prune", "0.5", "-o", "fresh").returncode == 2
    assert not (stock / "fresh").exists()


def test_declined_is_in_the_record(stock: Path, cli: Cli) -> None:
    done = cli("compress", "tiny.pt", "--prune", "0.5", "-o", "out")
    assert done.returncode == 2
    run = run_json(stock / "out")
    assert run["passes"][0]["status"] == "declined"
    assert "fixed by the network's input" in run["passes"][0]["reason"]


def test_a_drop_past_the_limit_exits_1_and_names_the_pass(
    tmp_path: Path, model_pt: Path, digits_npz: Path, cli: Cli
) -> None:
    done = cli(
        "compress",
        model_pt,
        "--prune",
        "0.9",
        "--export",
        "onnx",
        "--data",
        digits_npz,
        "--max-drop",
        "0.5",
        "--no-bench",
        *ALLOW,
        "-o",
        "run",
    )
    assert done.returncode == 1, done.stderr
    assert "prune lost" in done.stderr
    run = run_json(tmp_path / "run")
    assert run["status"] == "failed"
    assert (tmp_path / "run" / "exports" / "model.onnx").is_file(), "what was made is there to look at"


def test_a_failed_leaf_leaves_a_reproducer_and_the_other_leaves(tmp_path: Path, cli: Cli) -> None:
    """A tolerance that nothing can meet: INT8 fails its parity, the rest is made, and
    the reproducer fails the same way."""
    torch.save(plain_cnn(), tmp_path / "model.pt")
    (tmp_path / "r.yaml").write_text(
        "model: {path: model.pt}\ninput: ['x=batch,3,16,16']\nbench: {enabled: false}\nparity: {int8:"
        " {max_error: 1.0e-9, min_cosine: 1.0}}\npasses: [{pass: onnx}, {pass: quantize}, {pass:"
        " torchscript}]\n"
    )
    done = cli("run", "r.yaml", "-o", "run")
    assert done.returncode == 3, done.stderr
    run = run_json(tmp_path / "run")
    assert [entry["status"] for entry in run["passes"]] == ["ok", "failed", "ok"]
    assert {path.name for path in (tmp_path / "run" / "exports").iterdir()} == {
        "model.onnx",
        "model.torchscript.pt",
    }
    reproducer = run["passes"][1]["reproducer"]
    assert reproducer in done.stderr
    assert "FAILED" in (tmp_path / "run" / "report.md").read_text()
    again = cli("run", reproducer, "-o", "again")
    assert again.returncode == 3, "it does not reproduce the failure"
    assert run["passes"][1]["reason"] == run_json(tmp_path / "again")["passes"][0]["reason"]


def test_a_full_disk_loses_nothing(tmp_path: Path, cli: Cli) -> None:
    """A real limit on file size, set in the child: the second, larger run fails and the
    first one's artifacts stay whole."""
    torch.save(plain_cnn(), tmp_path / "model.pt")
    options = ["--input", "batch,3,16,16", "--no-bench", "--store", "store", "-o", "run"]
    assert cli("compress", "model.pt", "--prune", "0.5", "--export", "onnx", *options).returncode == 0
    before = {path: sha256_file(path) for path in (tmp_path / "run" / "exports").iterdir()}
    code = (
        "import resource,signal,sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2); from mlopt.cli.main import"
        " main; sys.exit(main(sys.argv[1:]))"
    )
    dense = max(path.stat().st_size for path in (tmp_path / "store").rglob("weights.safetensors"))
    # First the dense bundle does not fit; then it does, and the TorchScript file, which
    # is larger, does not.
    for limit, arguments in (
        (60_000, ["--prune", "0.25", "--export", "onnx"]),
        (dense + 500, ["--export", "torchscript"]),
    ):
        command = ["compress", "model.pt", *arguments, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        full = subprocess.run(
            [sys.executable, "-c", code, str(limit), *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert full.returncode == 2, full.stderr
        assert "no space left" in full.stderr
        assert {path: sha256_file(path) for path in before} == before
        assert cli(*command).returncode == 0
        before = {path: sha256_file(path) for path in (tmp_path / "run" / "exports").iterdir()}


def test_a_command_in_a_pickle_does_not_run(tmp_path: Path, cli: Cli) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save(Attack(), tmp_path / "evil.pt")
    done = cli("compress", "evil.pt", "--prune", "0.5")
    assert done.returncode == 2
    assert "posix.system" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_python_interface(tmp_path: Path) -> None:
    data = mlopt.Data(
        train=torch.utils.data.TensorDataset(*(torch.from_numpy(digits_arrays(16)[k][:256]) for k in "xy"))
    )
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    run = mlopt.compress(
        module,
        torch.randn(1, 1, 16, 16),
        prune=0.5,
        finetune=1,
        export=["onnx"],
        data=data,
        bench=False,
        out=tmp_path / "run",
    )
    assert run.record.status == "ok"
    assert mlopt.load(tmp_path / "run")[0].out_channels < 32  # type: ignore[index]


def test_a_dry_run_runs_nothing(stock: Path, cli: Cli) -> None:
    for name in ("--dry-run", "--plan"):
        done = cli(
            "compress", "model.pt", "--prune", "0.5", "--quantize", "int8", name, "--json", "-o", "out"
        )
        assert done.returncode == 0, done.stderr
        assert [step["name"] for step in json.loads(done.stdout)["passes"]] == [
            "prune",
            "torchscript",
            "onnx",
            "model.int8-cpu.onnx",
        ]
        assert not (stock / "out").exists()
        assert ("--plan is now called --dry-run" in done.stderr) == (name == "--plan")
