"""Commands that answer without a run, and how they answer."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from mlopt.cli.main import COMMANDS, main
from mlopt.recipe.schema import parse
from tests.conftest import CHROMIUM, ROOT, Cli, browse, plain_cnn


def test_help_is_light(cli: Cli) -> None:
    """Under 0.3 s of CPU and without torch: CPU time, not wall time, so that a busy
    machine does not matter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cli("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_without_torch(name: str) -> None:
    code = (
        f"import sys; from mlopt.cli.main import main; rc = main(['{name}', '--help']); sys.exit(rc or 10 *"
        " ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: mlopt" in done.stdout


def test_schema_is_the_recipes(cli: Cli) -> None:
    schema = json.loads(cli("schema").stdout)
    assert {"model", "passes", "bench", "parity"} <= schema["properties"].keys()
    assert {"Prune", "Quantize", "TensorRT"} <= schema["$defs"].keys()
    assert schema["additionalProperties"] is False


def test_doctor(cli: Cli) -> None:
    found = json.loads(cli("doctor", "--json").stdout)
    assert found["environment"]["versions"]["torch"]
    missing = [backend for backend in found["backends"] if not backend["ready"]]
    assert all(backend["install"] for backend in missing)
    assert "TensorRT-RTX" in cli("doctor").stdout


def test_inspect(cli: Cli, tmp_path: Path) -> None:
    torch.save(plain_cnn(), tmp_path / "m.pt")
    found = json.loads(cli("inspect", "m.pt", "--input", "1,3,16,16", "--json").stdout)
    # conv 3->32 at 16x16, conv 32->64 at 8x8, linear 64->10
    assert found["macs"] == 32 * 3 * 9 * 256 + 64 * 32 * 9 * 64 + 640
    assert found["params"] == sum(p.numel() for p in plain_cnn().parameters())
    assert [group["width"] for group in found["prunable"]] == [32, 64]
    text = cli("inspect", "m.pt", "--input", "1,3,16,16", "-v").stdout
    assert "prunable  2 widths" in text
    assert "Conv2d" in text


def test_unknown_command_and_no_command(cli: Cli) -> None:
    assert cli("compres").returncode == 2
    assert "error:" in cli("compres").stderr


def test_recipes_in_the_repository_are_valid() -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert parse(path.read_text(), str(path)).passes


def test_view_serves_the_file_and_forbids_the_network(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    from mlopt.integrations.netron import serve

    x, y = (helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    onnx.save(
        helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])),
        tmp_path / "m.onnx",
    )
    served = serve(tmp_path / "m.onnx")
    try:
        with urllib.request.urlopen(served.url) as answer:
            page = answer.read().decode()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' ")
            assert answer.headers["Set-Cookie"].startswith("consent=")
        assert 'name="version" content="0.0.0"' in page
        with urllib.request.urlopen(served.url + "data/m.onnx") as answer:
            assert answer.read() == (tmp_path / "m.onnx").read_bytes()
        for path in ("data/../../../etc/passwd", "../server.py/../../../../etc/passwd", "data/other.onnx"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(served.url + path)
    finally:
        served.close()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_view_draws_the_graph_and_tries_no_other_host(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    from mlopt.integrations.netron import serve

    x, y = (helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    onnx.save(
        helper.make_model(helper.make_graph([helper.make_node("Softplus", ["x"], ["y"])], "g", [x], [y])),
        tmp_path / "m.onnx",
    )
    served = serve(tmp_path / "m.onnx")
    try:
        done = browse(served.url, tmp_path, "--enable-logging=stderr")
    finally:
        served.close()
    assert "Softplus" in done.stdout, "the node is not drawn"
    assert "Content Security Policy" not in done.stderr, "the page tried to reach another host"


def test_numbers_in_the_arch_arguments(cli: Cli, tmp_path: Path) -> None:
    from recipes.networks import digits_resnet

    torch.save(digits_resnet(16).state_dict(), tmp_path / "w.pt")
    options = [
        "--arch",
        "recipes.networks:digits_resnet",
        "--arch-arg",
        "width=16",
        "--input",
        "1,1,16,16",
        "--json",
    ]
    found = json.loads(cli("inspect", "w.pt", *options).stdout)
    assert found["kind"] == "state dict"
    np.testing.assert_equal(found["params"], sum(p.numel() for p in digits_resnet(16).parameters()))


def test_prune_says_where_the_model_lies_and_what_it_won_and_folds_no_path(cli: Cli, tmp_path: Path) -> None:
    torch.save(plain_cnn(1), tmp_path / "model.pt")
    long = tmp_path / ("a-directory-with-a-rather-long-name-" * 5)
    done = cli(
        "prune",
        "model.pt",
        "--amount",
        "0.5",
        "--input",
        "batch,1,16,16",
        "--bench",
        "-o",
        long,
        env={"COLUMNS": "60"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("Smaller: ") and "fewer MACs" in line for line in lines)
    assert any(line.startswith("model ") and str(long / "model") in line for line in lines)
    assert any(line.startswith("plan ") and str(long / "plan.json") in line for line in lines)
    assert (long / "model" / "model.json").is_file()
    (row,) = [line for line in lines if line.startswith("eager compressed")]
    assert "x (" in row, "the speed-up stands in the same line"


def test_the_store_says_what_it_holds_and_gives_it_back(cli: Cli, tmp_path: Path) -> None:
    torch.save(plain_cnn(1), tmp_path / "model.pt")
    where = ("--store", tmp_path / "kept")
    done = cli(
        "compress",
        "model.pt",
        "--prune",
        "0.5",
        "--export",
        "onnx",
        "--input",
        "batch,1,16,16",
        "--no-bench",
        *where,
        "-o",
        "run",
    )
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "run").rglob(".store"))
    held = json.loads(cli("store", "--size", "--json", *where).stdout)["holds"]
    assert held["objects"] == 3  # the dense module, the pruned one, the export
    assert held["bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "kept" / "objects").rglob("*") if path.is_file()
    )
    assert json.loads(cli("store", "--gc", "--json", *where).stdout)["removed"]["objects"] == 0, (
        "all of it is new"
    )
    freed = json.loads(cli("store", "--gc", "--days", "0", "--json", *where).stdout)
    assert (freed["removed"]["objects"], freed["holds"]["objects"]) == (3, 0)
    assert "0 artifacts" in cli("store", *where).stdout
    assert cli("store", "--store", tmp_path / "nowhere").returncode == 0


@pytest.mark.parametrize(("what", "key"), [("recipe", "passes"), ("policy", "latency"), ("run", "compression"), ("gate", "verdict"), ("bench", "bench"),
                                           ("baseline", "entries")])  # fmt: skip
def test_schemas(what: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--of", what]) == 0
    assert key in json.loads(capsys.readouterr().out)["properties"]


def test_the_old_schema_of_the_gate_is_its_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "gate"]) == 0
    assert "latency" in json.loads(capsys.readouterr().out)["properties"]
