"""The one list of passes and backends: complete, and open to others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mlopt import catalog
from mlopt.artifact import Artifact
from mlopt.catalog import BackendSpec, PassSpec
from mlopt.cli.main import main
from mlopt.errors import RecipeError, UsageError
from mlopt.passes.context import RunContext
from mlopt.recipe.configs import PassConfig
from mlopt.recipe.order import steps_of
from mlopt.recipe.schema import Recipe, parse
from tests import toys
from tests.conftest import run_json


@pytest.fixture
def toy() -> Iterator[None]:
    catalog.register(toys.PASS)
    catalog.register(toys.RUNTIME)
    yield
    catalog.unregister(toys.PASS)
    catalog.unregister(toys.RUNTIME)


@pytest.mark.parametrize("spec", catalog.PASSES.values(), ids=str)
def test_every_line_of_the_catalog_leads_somewhere(spec: PassSpec) -> None:
    config = catalog.load(spec.config)
    assert issubclass(config, PassConfig)
    assert config.model_fields["pass_"].default == spec.name
    assert (config().gives() == "module") == (spec.role == "trunk")
    assert catalog.load(spec.implementation).version >= 1
    assert all(name in catalog.BACKENDS for name in (*spec.needs, *config().needs()))


@pytest.mark.parametrize("spec", [spec for spec in catalog.BACKENDS.values() if spec.can_run], ids=str)
def test_every_runtime_of_the_catalog_is_there(spec: BackendSpec) -> None:
    assert callable(catalog.load(spec.opener))
    assert catalog.backend_for(spec.formats[0]) is spec


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="already"):
        catalog.register(catalog.PASSES["prune"])
    with pytest.raises(UsageError, match="no backend"):
        catalog.backend_for("toy")
    with pytest.raises(RecipeError, match="there is no pass 'toy'"):
        parse("model: {path: m.pt}\npasses: [{pass: toy}]\n")


RECIPE = """\
model: {path: model.pt}
input: ['x=batch,8']
passes: [{pass: toy}, {pass: onnx}]
bench: {budget_s: 0.3}
"""


@pytest.mark.usefixtures("toy")
def test_a_pass_and_a_runtime_from_outside_run_like_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Through `mlopt run`: checked against the module, measured in a process of its
    own, in the record and in the report."""
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), "model.pt")
    Path("r.yaml").write_text(RECIPE)
    assert main(["run", "r.yaml", "-o", "run"]) == 0, capfd.readouterr().err
    run = run_json(Path("run"))
    entry = run["passes"][0]
    assert (entry["pass"], entry["status"], entry["metrics"]["arrays"]) == ("toy", "ok", 4)
    artifact = run["artifacts"][0]
    assert (artifact["format"], artifact["path"]) == ("toy", "exports/model.toy.npz")
    assert artifact["parity"]["max_error"] < 1e-6
    row = next(row for row in run["bench"] if row["artifact"] == "model.toy.npz")
    assert row["runtime"] == "toy"
    assert row["speedup"]["against"] == "eager dense"
    report = Path("run/report.md").read_text()
    assert "toy: it holds 4 arrays." in report
    assert "| model.toy.npz |" in report
    assert main(["run", "r.yaml", "-o", "again"]) == 0
    assert {entry["status"] for entry in run_json(Path("again"))["passes"]} == {"cached"}


@pytest.mark.usefixtures("toy")
def test_a_wrong_result_of_a_pass_from_outside_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), "model.pt")
    Path("r.yaml").write_text(RECIPE.replace("pass: toy", "pass: toy, decimals: 0"))
    assert main(["run", "r.yaml", "-o", "run"]) == 3
    assert run_json(Path("run"))["passes"][0]["status"] == "failed"
    assert not Path("run/exports/model.toy.npz").exists()


@pytest.mark.usefixtures("toy")
def test_what_a_pass_needs_is_looked_for_before_anything_runs(tmp_path: Path) -> None:
    recipe = parse(RECIPE)
    assert [step.name for step in steps_of(recipe)] == ["toy", "onnx"]
    assert "Toy" in str(Recipe.model_json_schema(by_alias=True))
    catalog.unregister(toys.RUNTIME)
    catalog.register(BackendSpec("toy", "the toy", packages=("no_such_package",), install="pip install toys"))
    with pytest.raises(Exception, match="no_such_package") as error:
        steps_of(recipe)
    assert error.value.exit_code == 4  # type: ignore[attr-defined]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("exit", "SystemExit"),
        ("no file", "FileNotFoundError"),
        ("none", "not a PassResult"),
        ("name", "its configuration says model.toy.npz"),
        ("unwritten", "which it has not written"),
        ("metrics", "cannot be written down"),
        ("findings", "no Finding"),
    ],
)
def test_a_fault_of_a_pass_from_outside_costs_its_own_result_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    """Nothing of it is kept, the other passes go on, and the record says what was
    wrong."""
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), "model.pt")
    Path("r.yaml").write_text(RECIPE.replace("0.3", "0.3, enabled: false"))
    good = toys.ToyPass.__call__

    def bad(self: toys.ToyPass, artifact: Artifact, stage: Path, run: RunContext) -> object:
        if fault == "exit":
            sys.exit(0)
        if fault == "no file":
            (tmp_path / "missing").read_bytes()
        made = good(self, artifact, stage, run)
        return {
            "none": None,
            "name": replace(made, artifact=replace(made.artifact, name="other")),
            "unwritten": replace(made, artifact=replace(made.artifact, main="other")),
            "metrics": replace(made, metrics={"a": object()}),
            "findings": replace(made, findings=("slow",)),
        }[fault]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(toys.ToyPass, "__call__", bad)
    assert main(["run", "r.yaml", "-o", "run"]) == 3
    toy, onnx = run_json(Path("run"))["passes"]
    assert toy["status"] == "failed"
    assert words in toy["reason"]
    assert onnx["status"] == "ok"
    assert [path.name for path in Path("run/exports").iterdir()] == ["model.onnx"]
