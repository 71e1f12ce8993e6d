"""`mlopt bench`: what its rows hold, and results and benchmarks that travel between
machines."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from mlopt.artifact import TensorSpec
from mlopt.cli.bench import command
from mlopt.errors import ModelRefused, UsageError
from mlopt.measuring.package import HEAD, is_packed, measure_packed, pack
from mlopt.measuring.run import BenchProtocol
from mlopt.model.trust import Trust
from mlopt.records.bench import BenchFile, merge, parse
from recipes.networks import digits_resnet
from tests.conftest import Cli, plain_cnn
from tests.nets import mlp


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nets")
    mlp(place / "a.onnx")
    mlp(place / "b.onnx", layers=6)
    return place


def test_rows_hold_what_was_asked(nets: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "bench",
        nets / "a.onnx",
        nets / "b.onnx",
        "--budget",
        "0.4",
        "--batch",
        "1,4",
        "--sessions",
        "2",
        "--profile",
        "-o",
        tmp_path / "r.json",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data == json.loads((tmp_path / "r.json").read_text())
    rows = data["bench"]
    assert [(row["artifact"].rpartition("/")[2], row["batch"]) for row in rows] == [
        ("a.onnx", 1),
        ("b.onnx", 1),
        ("a.onnx", 4),
        ("b.onnx", 4),
    ]
    first, second = rows[:2]
    assert second["speedup"]["high"] < 1
    assert (first["precision"], first["provider"], first["copies"], first["clock"]) == (
        "fp32",
        "CPUExecutionProvider",
        "in",
        "host",
    )
    assert first["operators"][0]["kind"] in ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")
    assert first["concurrent"]["sessions"] == 2
    assert 0 < first["load_s"] < first["cold_start_s"]
    assert first["p10_s"] <= first["p50_s"] <= first["p90_s"]
    assert first["settled"] in (True, False)


def test_the_table_shows_every_percentile(
    nets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With cold caches; one round is enough, for writing over them takes far longer
    than the calls."""
    monkeypatch.setattr("mlopt.measuring.sampling.LEAST_COLLECTED", 1)
    assert command.main([str(nets / "a.onnx"), "--budget", "0.1", "--flush"], standalone_mode=False) == 0
    shown = capsys.readouterr().out
    assert "p99.9" in shown
    assert "a.onnx" in shown


def test_paths_stay_whole_where_there_is_no_terminal(nets: Path, cli: Cli, tmp_path: Path) -> None:
    """A script cuts the table by lines: a folded path would be two wrong ones. Whatever
    COLUMNS says."""
    long = tmp_path / "-".join(["a-rather-long-name"] * 10) / "model.onnx"
    long.parent.mkdir()
    shutil.copy(nets / "a.onnx", long)
    for columns in ("40", "200"):
        done = cli("bench", long, "--budget", "0.1", env={"COLUMNS": columns})
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if "model.onnx" in line]
        assert str(long) in line
        assert "onnxruntime (CPUExecutionProvider)" in line
        assert len(done.stdout.splitlines()) == 2  # the headings and the row


def test_what_cannot_be_measured_costs_its_own_row(nets: Path, cli: Cli, tmp_path: Path) -> None:
    """A graph that the checker accepts and ONNX Runtime does not: an operator of
    nobody's domain."""
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Nothing", ["x"], ["y"], domain="nobody")], "g", [x], [y])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)], ir_version=8
    )
    save(model, tmp_path / "strange.onnx")
    done = cli("bench", nets / "a.onnx", tmp_path / "strange.onnx", nets / "b.onnx", "--budget", "0.2")
    assert done.returncode == 2, done.stderr
    assert "strange.onnx" in done.stderr
    assert "a.onnx" in done.stdout
    assert "b.onnx" in done.stdout


def test_a_package_is_measured_without_the_code(nets: Path, cli: Cli, tmp_path: Path) -> None:
    kit = tmp_path / "kit.zip"
    torch.save(plain_cnn(), tmp_path / "cnn.pt")
    done = cli("bench", nets / "a.onnx", nets / "b.onnx", "--package", kit, "--batch", "2", "--budget", "0.2")
    assert done.returncode == 0, done.stderr
    assert is_packed(kit)
    assert not is_packed(tmp_path / "cnn.pt")  # PyTorch's files are archives too
    done = cli("bench", kit, "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)["bench"]
    assert [(row["artifact"], row["batch"]) for row in rows] == [("a.onnx", 2), ("b.onnx", 2)]
    assert rows[1]["speedup"]["high"] < 1
    assert (
        cli("bench", tmp_path / "cnn.pt", "--bundle", tmp_path / "cnn.zip", "--budget", "0.1").returncode == 0
    )  # stock layers need no code; the older name of the option
    assert [row.artifact for row in measure_packed(tmp_path / "cnn.zip", Trust())[0]] == ["cnn.pt"]


def test_a_module_of_ones_own_classes_is_not_packed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model_pt = tmp_path_factory.mktemp("own") / "model.pt"
    torch.save(digits_resnet(8), model_pt)
    trust = Trust(allow_class=("recipes.networks.*",))
    with pytest.raises(UsageError, match="would need its code"):
        pack(tmp_path / "kit.zip", [str(model_pt)], trust, (), (1,), BenchProtocol(1.0))
    assert not list(tmp_path.iterdir())


def altered(kit: Path, out: Path, change: dict[str, bytes], **write: int) -> Path:
    """A copy of a package with some members replaced."""
    with zipfile.ZipFile(kit) as old, zipfile.ZipFile(out, "w", **write) as new:
        for name in old.namelist():
            new.writestr(name, change.get(name, old.read(name)))
        for name in change:
            if name not in old.namelist():
                new.writestr(name, change[name])
    return out


def test_hostile_packages_are_refused(nets: Path, tmp_path: Path) -> None:
    kit = tmp_path / "kit.zip"
    pack(kit, [str(nets / "a.onnx")], Trust(), (), (1,), BenchProtocol(0.3))
    with zipfile.ZipFile(kit) as archive:
        head = json.loads(archive.read(HEAD))
    member = "artifacts/0/a.onnx"
    with pytest.raises(ModelRefused, match="not what was packed"):
        measure_packed(altered(kit, tmp_path / "1.zip", {member: (nets / "b.onnx").read_bytes()}), Trust())
    with pytest.raises(ModelRefused, match="compressed"):
        measure_packed(altered(kit, tmp_path / "2.zip", {}, compression=zipfile.ZIP_DEFLATED), Trust())
    for place in ("/etc", "../../..", "artifacts/../.."):
        head["artifacts"][0]["root"] = place
        with pytest.raises(ModelRefused, match="leaves the package"):
            measure_packed(altered(kit, tmp_path / "3.zip", {HEAD: json.dumps(head).encode()}), Trust())
    head["schema_version"] = 99
    with pytest.raises(UsageError, match="newer mlopt"):
        measure_packed(altered(kit, tmp_path / "4.zip", {HEAD: json.dumps(head).encode()}), Trust())
    with pytest.raises(ModelRefused, match="not a package"):
        measure_packed(altered(kit, tmp_path / "5.zip", {HEAD: b"{}"}), Trust())
    with zipfile.ZipFile(tmp_path / "6.zip", "w") as archive:
        archive.writestr("../escaped", b"x")
        archive.writestr(HEAD, b"{}")
    with pytest.raises(ModelRefused):
        measure_packed(tmp_path / "6.zip", Trust())
    assert not (tmp_path.parent / "escaped").exists()


def test_code_in_a_package_needs_trust(tmp_path: Path) -> None:
    script = torch.jit.script(plain_cnn().eval())
    (tmp_path / "s.pt").write_bytes(script.save_to_buffer())
    pack(
        tmp_path / "kit.zip",
        [str(tmp_path / "s.pt")],
        Trust(trust_code=True),
        (TensorSpec("x", (1, 3, 16, 16)),),
        (1,),
        BenchProtocol(0.3),
    )
    with pytest.raises(ModelRefused, match="TorchScript"):
        measure_packed(tmp_path / "kit.zip", Trust())
    rows, failed = measure_packed(tmp_path / "kit.zip", Trust(trust_code=True))
    assert not failed
    assert rows[0].runtime == "torchscript"


def test_machines_are_merged_side_by_side_and_never_mixed(cli: Cli, tmp_path: Path) -> None:
    def result(cpu: str, p50: float, load: float) -> dict[str, object]:
        row = {"artifact": "m", "runtime": "r", "provider": "p", "batch": 1, "p50_s": p50, "p90_s": p50, "p99_s": None, "throughput_per_s": 1 / p50,
               "peak_rss_bytes": 1, "speedup": None}  # fmt: skip
        environment = {"cpu": cpu, "cores": 2, "versions": {"torch": "2"}, "load_at_start": [load]}
        return {"schema_version": 1, "environment": environment, "bench": [row]}

    def read(cpu: str, p50: float, load: float) -> BenchFile:
        return parse(json.loads(json.dumps(result(cpu, p50, load))), "a file")

    groups = merge([("a", read("x", 1e-3, 0.1)), ("b", read("y", 2e-3, 0.1)), ("c", read("x", 1.1e-3, 5.0))])
    assert [(group.files, len(group.bench)) for group in groups] == [
        (("a", "c"), 2),
        (("b",), 1),
    ]  # load is no fingerprint
    assert [row.file for row in groups[0].bench] == ["a", "c"]
    for name, cpu in (("a", "x"), ("b", "y")):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(cpu, 1e-3, 0.0)))
    done = cli("bench", "--merge", tmp_path / "a.json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert "x, 2 cores" in done.stdout
    assert "y, 2 cores" in done.stdout
    with pytest.raises(UsageError, match="no bench rows"):
        parse({"schema_version": 1}, "a")
