"""The recipes in the repository, run as they stand but for fewer epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlopt.recipe.schema import parse
from tests.conftest import ROOT, Cli, run_json


@pytest.mark.parametrize(("name", "least"), [("digits_cnn", 90.0), ("digits_vit", 25.0), ("byte_lm", 15.0)])
def test_recipe(cli: Cli, tmp_path: Path, name: str, least: float) -> None:
    recipe = parse((ROOT / "recipes" / f"{name}.yaml").read_text())
    steps = tuple(
        step.model_copy(update={"epochs": 5 if step.pass_ == "train" else 2, "max_steps": 40 if name == "byte_lm" else 115})
        if step.pass_ in ("train", "finetune", "distill")
        else step
        for step in recipe.passes
    )
    quick = recipe.model_copy(update={"passes": steps, "max_drop": None, "bench": recipe.bench.model_copy(update={"budget_s": 0.5})})
    (tmp_path / "quick.yaml").write_text(quick.to_yaml())
    done = cli("run", "quick.yaml", "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = run_json(tmp_path / "run")
    assert {entry["status"] for entry in run["passes"]} == {"ok"}
    final = [run["accuracy"]["after"][e["name"]] for e in run["passes"] if e["pass"] in ("finetune", "distill")][-1]
    assert final > least
    for entry in run["passes"]:
        if entry["pass"] == "prune":
            asked = 1 - float(entry["config"]["amount"].partition(":")[2])
            assert abs(entry["metrics"]["reached"] - asked) <= 0.03
            assert entry["metrics"]["proof"]["holds"]
            assert entry["metrics"]["rung"] == "module"
