"""One run: what the key of an action depends on, what is loaded and read how often."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import mlopt
from mlopt import catalog
from mlopt.artifact import Artifact, Format, TensorSpec
from mlopt.cli.main import main
from mlopt.data.sets import NO_DATA
from mlopt.errors import UsageError
from mlopt.model import bundle
from mlopt.model.trust import Trust
from mlopt.recipe.configs import PassConfig
from mlopt.recipe.order import Step
from mlopt.recipe.schema import Bench, Model, Parity, Recipe, Tolerance
from mlopt.records.machine import Machine
from mlopt.records.run import RunRecord, parse
from mlopt.report.run import WHY, run_document
from mlopt.run.checks import Checks
from mlopt.run.directory import RunDirectory
from mlopt.run.intake import Intake
from mlopt.run.key import ActionKey, installed_versions
from mlopt.run.runner import context_of
from mlopt.run.state import State
from mlopt.run.step import Job, key_of
from mlopt.run.store import Store
from mlopt.system.progress import silent
from tests.conftest import ROOT, run_json

ARTIFACT = Artifact("module", Format.MODULE, Path("x"), "", "d1", (TensorSpec("x", ("batch", 8)),))
HERE = Machine(cpu="a", cores=2)
ANOTHER: dict[str, Any] = {
    "epochs": 9, "batch_size": 7, "lr": 0.5, "optimizer": "sgd", "weight_decay": 0.5, "warmup": 0.5, "clip_norm": 9.0, "max_steps": 3, "part": (0.0, 0.5),
    "temperature": 9.0, "alpha": 0.9, "kind": "2:4", "amount": "params:0.3", "importance": "l1", "spread": "global", "keep": ("a",), "plan": None,
    "runtime": "eager", "round_to": 3, "floor": 0.3, "recalibrate": False, "opset": 21, "precision": "fp16", "target": "tensorrt",
    "calibration": "entropy", "samples": 3, "flavour": "tensorrt", "source": "fp16", "max_batch": 2, "timeout_s": 5.0,
}  # fmt: skip
"""Another value for every field of every configuration. A new field needs one here, or
it is not shown to be in the key."""

NOT_IN_THE_KEY = {
    "version": "of the format: there is only one",
    "passes": "each pass has a key of its own, in which its configuration is",
    "model.path": "what it holds is: the digest of the module that came in",
    "model.arch": "as the path: what the factory gives is hashed, and its code",
    "model.arch_args": "as the factory",
    "model.allow_class": "what may be read, not what is made of it",
    "model.trust_code": "as allow_class",
    "max_drop": "judged at the end, on what is remembered",
    "parity.fp32": "tolerances are judged again on what is remembered",
    "parity.fp16": "as fp32",
    "parity.int8": "as fp32",
    "bench.batch": "what is measured at the end has a key of its own",
    "bench.budget_s": "as the batch",
    "bench.enabled": "as the batch",
    "bench.threads": "only where a pass measures",
    "nproc": "only where a pass trains",
    "device": "auto is resolved first; what is used is in the key",
    "input": "the signature that was settled on is",
    "data": "its fingerprint is",
}
"""Fields of a recipe that do not change the key of a pass that neither trains nor
measures, and why not."""


def key(
    recipe: Recipe,
    name: str = "onnx",
    *,
    artifact: Artifact = ARTIFACT,
    dense: Artifact = ARTIFACT,
    machine: Machine = HERE,
    code: str = "c",
    data: Any = NO_DATA,
    version: int = 1,
) -> str:
    """The key of a recipe's first pass of this name."""
    config = next(config for config in recipe.passes if config.pass_ == name)
    trust = Trust()
    context = context_of(recipe, trust, Intake(dense, data, "given", "s", "module"), recipe.device)
    record = RunRecord(environment=machine, recipe={})
    state = State(record, context, Checks(context, recipe.parity), dense, {"module": artifact})
    job = Job(recipe, RunDirectory(Path("out")), Store(Path("store")), machine, code, silent)
    return key_of(job, state, Step(name, config, catalog.PASSES[name], "module"), artifact, version).digest()


def recipe_of(*configs: PassConfig, **more: Any) -> Recipe:
    return Recipe(model=Model(path="m.pt"), passes=configs, **more)


def config_of(name: str, **values: Any) -> PassConfig:
    kind: type[PassConfig] = catalog.load(catalog.PASSES[name].config)
    return kind(**values)


@pytest.mark.parametrize("name", catalog.PASSES)
def test_every_setting_of_a_pass_is_in_its_key(name: str, tmp_path: Path) -> None:
    plain = config_of(name)
    before = key(recipe_of(plain), name)
    assert key(recipe_of(config_of(name)), name) == before, "the same must have the same key"
    for field in type(plain).model_fields:
        if field in ("pass_", "plan"):
            continue
        other = key(recipe_of(plain.model_copy(update={field: ANOTHER[field]})), name)
        assert other != before, f"{name}.{field} is not in the key"


def test_a_plan_that_was_edited_is_a_miss(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    keys = []
    for text in ("{}", "{ }"):
        plan.write_text(text)
        keys.append(key(recipe_of(config_of("prune", plan=str(plan))), "prune"))
    assert keys[0] != keys[1]


def changed(recipe: Recipe, path: str) -> Recipe:
    """The recipe with another value at a path."""
    values: dict[str, Any] = {
        "model": {"path": "other.pt", "arch": "a:b", "arch_args": {"x": 1}, "allow_class": ("a.B",), "trust_code": True},
        "parity": {"samples": 3, "fp32": Tolerance(max_error=1, min_cosine=0.5), "fp16": Tolerance(max_error=1, min_cosine=0.5),
                   "int8": Tolerance(max_error=2, min_cosine=0.5)},
        "bench": {"threads": 2, "batch": (8,), "budget_s": 1.0, "enabled": False},
        "version": 1, "input": ("1,8",), "data": "d.npz", "seed": 7, "device": "cpu", "nproc": 2, "max_drop": 1.0,
        "passes": (*recipe.passes, config_of("torchscript")),
    }  # fmt: skip
    first, _, rest = path.partition(".")
    if not rest:
        return recipe.model_copy(update={first: values[first]})
    return recipe.model_copy(
        update={first: getattr(recipe, first).model_copy(update={rest: values[first][rest]})}
    )


def test_every_field_of_a_recipe_is_in_the_key_or_on_the_list() -> None:
    nested = {"model": Model, "parity": Parity, "bench": Bench}
    paths = [f"{name}.{field}" for name, kind in nested.items() for field in kind.model_fields]
    paths += [name for name in Recipe.model_fields if name not in nested]
    recipe = recipe_of(config_of("onnx"))
    same = {path for path in paths if key(changed(recipe, path)) == key(recipe)}
    different = set(paths) - same
    assert different == {"seed", "parity.samples", "device"}
    assert same | {"device"} == set(NOT_IN_THE_KEY), (
        f"neither in the key nor on the list: {same ^ set(NOT_IN_THE_KEY)}"
    )


def test_what_came_in_is_in_the_key() -> None:
    recipe = recipe_of(config_of("onnx"))
    before = key(recipe)
    assert key(recipe, code="edited forward") != before
    assert key(recipe, artifact=replace(ARTIFACT, digest="d2")) != before
    assert key(recipe, artifact=replace(ARTIFACT, inputs=(TensorSpec("x", (1, 8)),))) != before
    assert key(recipe, data=replace(NO_DATA, fingerprint="other")) != before
    assert key(recipe, dense=replace(ARTIFACT, digest="of the teacher")) != before
    assert key(recipe, version=2) != before


def test_versions_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(config_of("onnx"))
    before = key(recipe)
    assert {"mlopt", "python", "torch", "onnx", "onnxscript"} <= dict(installed_versions()).keys()
    monkeypatch.setattr("mlopt.run.key.version_of", lambda package: "another")
    assert key(recipe) != before


def test_threads_and_machine_count_only_where_a_pass_measures_and_processes_where_it_trains() -> None:
    there, two = Machine(cpu="b", cores=2), Bench(threads=2)
    for name, spec in catalog.PASSES.items():
        recipe = recipe_of(config_of(name))
        before = key(recipe, name)
        bound = spec.measures or spec.machine_bound
        assert (key(recipe, name, machine=there) != before) == bound, name
        assert (key(recipe.model_copy(update={"bench": two}), name) != before) == spec.measures, name
        assert (key(recipe.model_copy(update={"nproc": 2}), name) != before) == spec.trains, name
    assert {name for name, spec in catalog.PASSES.items() if spec.measures} == {"prune"}
    assert {name for name, spec in catalog.PASSES.items() if spec.machine_bound} == {
        "aoti",
        "quantize",
        "tensorrt",
    }


def test_every_field_of_a_key_changes_its_digest() -> None:
    plain = ActionKey(
        "onnx", 1, {}, "i", ("x=1",), "d", "data", "code", 0, "cpu", 1, None, None, (), 64, (("torch", "2"),)
    )
    other = ActionKey(
        "aoti",
        2,
        {"a": 1},
        "j",
        ("y=1",),
        "e",
        "more",
        "edited",
        1,
        "cuda",
        2,
        1,
        "here",
        ("f",),
        3,
        (("torch", "3"),),
    )
    digests = {replace(plain, **{field.name: getattr(other, field.name)}).digest() for field in fields(plain)}
    assert len(digests) == len(fields(plain))
    assert plain.digest() not in digests


class Counting(TensorDataset):
    """Counts how often each sample is read."""

    def __init__(self, n: int) -> None:
        super().__init__(torch.randn(n, 1, 8, 8), torch.arange(n) % 4)
        self.reads = [0] * n

    def __getitem__(self, index: int) -> Any:
        self.reads[index] += 1
        return super().__getitem__(index)


def test_a_bundle_is_loaded_at_most_four_times_and_data_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compress --prune --finetune --export onnx`, in this process."""
    loads: list[Path] = []
    read = bundle.read

    def counting(directory: Path, trust: Trust) -> tuple[nn.Module, bundle.Bundle]:
        loads.append(directory)
        return read(directory, trust)

    monkeypatch.setattr(bundle, "read", counting)
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)
    )
    train, held = Counting(64), Counting(40)
    data = mlopt.Data(train=train, calibration=Counting(8), evaluation=held)
    run = mlopt.compress(
        module,
        torch.randn(2, 1, 8, 8),
        prune=0.5,
        finetune=3,
        export=["onnx"],
        data=data,
        out=tmp_path / "run",
        bench=False,
    )
    assert run.record.status == "ok"
    assert 1 <= len(loads) <= 4, loads
    # The first samples are read once more for the fingerprint, and once for the labels.
    assert max(train.reads) <= 3 + 2, "an epoch reads the training set once"
    assert max(held.reads) <= 1 + 2, "the evaluation set is read once a run"


def test_a_run_leaves_nothing_of_another_recipe_in_its_directory(tmp_path: Path) -> None:
    """A module, a plan or an export of an earlier recipe would pass for this one's;
    what the user put there stays."""
    module, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)), torch.randn(2, 8)
    place = tmp_path / "run"
    mlopt.compress(module, x, prune=0.5, export="onnx", out=place, bench=False)
    assert mlopt.load(place)[0].out_features < 64
    assert run_json(place)["plans"] == ["plan.json"]
    (place / "plan-7.json").write_text("{}")
    mlopt.compress(module, x, export="torchscript", out=place, bench=False)
    assert mlopt.load(place)[0].out_features == 64
    assert {path.name for path in place.iterdir()} >= {"model", "plan-7.json", "run.json"}
    assert not (place / "plan.json").exists()
    assert [path.name for path in (place / "exports").iterdir()] == ["model.torchscript.pt"]


def test_a_run_from_a_file_leaves_no_module_of_an_earlier_one(tmp_path: Path) -> None:
    module, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)), torch.randn(2, 8)
    place = tmp_path / "run"
    mlopt.compress(module, x, export="onnx", out=place, bench=False)
    file = place / "exports" / "model.onnx"
    command = [str(file), "--export", "onnx", "--quantize", "int8", "--no-bench", "-o", str(place)]
    assert main(["compress", *command]) == 0
    assert not (place / "model").exists(), "the module is not this run's"
    assert file.is_file(), "what a run reads, it does not remove"
    assert main(["compress", *command]) == 0


def test_a_run_keeps_the_plan_that_it_reads(tmp_path: Path) -> None:
    module, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)), torch.randn(2, 8)
    place = tmp_path / "run"
    mlopt.compress(module, x, prune=0.5, export="onnx", out=place, bench=False)
    torch.save(module, tmp_path / "m.pt")
    mine = place / "plan-2.json"
    mine.write_text((place / "plan.json").read_text())
    command = ["prune", str(tmp_path / "m.pt"), "--input", "x=batch,8", "--plan", str(mine), "-o", str(place)]
    for _ in range(2):
        assert main(command) == 0
        assert mine.is_file()


KEEPS = """
import torch
from torch import nn

class Keeps(nn.Module):
    \"\"\"Keeps a tensor of its first forward, as rotary tables and masks are kept.\"\"\"

    def __init__(self):
        super().__init__()
        self.a, self.b, self.kept = nn.Linear(8, 64), nn.Linear(64, 4), None

    def forward(self, x):
        if self.kept is None:
            self.kept = torch.ones(64) * FACTOR
        return self.b(torch.relu(self.a(x) * self.kept))
"""


def test_a_forward_that_keeps_a_tensor_can_be_trained_and_its_edit_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real run, the network's file edited, and the same run again: nothing is taken
    from the store."""
    monkeypatch.chdir(tmp_path)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    make = "import torch; from keeps import Keeps; torch.manual_seed(0); torch.save(Keeps(), 'm.pt')"
    x, y = torch.randn(40, 8), torch.arange(40) % 4
    np.savez("d.npz", x=x.numpy(), y=y.numpy())
    options = [
        "--finetune",
        "1",
        "--export",
        "onnx",
        "--data",
        "d.npz",
        "--no-bench",
        "--allow-class",
        "keeps.Keeps",
    ]

    def run(text: str, place: str) -> list[str]:
        Path("keeps.py").write_text(text)
        command = [sys.executable, "-B", "-m", "mlopt", "compress", "m.pt", *options, "-o", place]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [entry["status"] for entry in run_json(Path(place))["passes"]]

    Path("keeps.py").write_text(KEEPS.replace("FACTOR", "1.0"))
    subprocess.run([sys.executable, "-B", "-c", make], env=environment, check=True)
    assert run(KEEPS.replace("FACTOR", "1.0"), "a") == ["ok", "ok"]
    assert run(KEEPS.replace("FACTOR", "1.0"), "b") == ["cached", "cached"]
    assert run(KEEPS.replace("FACTOR", "3.0"), "c") == ["ok", "ok"]


def test_a_record_of_the_first_edition_is_read_as_it_was_meant() -> None:
    """Its passes have no role and no findings: what they were is in the catalog, what
    they said among their metrics."""
    old = {
        "schema_version": 1, "status": "ok", "error": None, "environment": {"versions": {}, "cpu": "x"}, "recipe": {"model": {"path": "m.pt"}},
        "accuracy": {"metric": "accuracy", "baseline": 95.0, "after": {"prune": 20.0}, "samples": 10},
        "passes": [{"name": "prune", "pass": "prune", "status": "ok", "reason": "", "seconds": 1.0, "config": {},
                    "metrics": {"summary": "half remains", "note": "asked for less"}}],
    }  # fmt: skip
    record = parse(old, "run.json")
    assert (record.passes[0].role, record.passes[0].summary) == ("trunk", "half remains")
    document = run_document(record)
    assert any(line.startswith("Cost: 75.00 points") for line in document.headlines)
    assert "prune: asked for less." in document.lines(WHY)


def test_the_python_interface_names_what_may_be_chosen(tmp_path: Path) -> None:
    module, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)), torch.randn(2, 8)
    with pytest.raises(UsageError, match="runtime zz") as error:
        mlopt.prune(module, x, runtime="zz")
    assert all(name in error.value.hint for name in ("onnx", "torchscript", "eager"))
    with pytest.raises(UsageError, match="--quantize int9"):
        mlopt.compress(module, x, quantize="int9", out=tmp_path / "run")
