"""The recipes in the repository, run as they stand but for fewer steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlopt.recipe.schema import parse
from tests.conftest import ROOT, Cli, run_json

NAMES = ("digits_cnn", "digits_vit", "byte_lm")


def run_recipe(cli: Cli, place: Path, name: str, **training: int) -> dict[str, Any]:
    """The record of a recipe whose passes that train are cut short."""
    recipe = parse((ROOT / "recipes" / f"{name}.yaml").read_text())
    steps = tuple(
        step.model_copy(update=training) if step.pass_ in ("train", "finetune", "distill") else step
        for step in recipe.passes
    )
    bench = recipe.bench.model_copy(update={"budget_s": 0.3, "batch": recipe.bench.batch[:1]})
    quick = recipe.model_copy(update={"passes": steps, "max_drop": None, "bench": bench})
    (place / "quick.yaml").write_text(quick.to_yaml())
    done = cli("run", "quick.yaml", "-o", "run", cwd=place)
    assert done.returncode == 0, done.stderr
    run = run_json(place / "run")
    assert {entry["status"] for entry in run["passes"]} == {"ok"}
    for entry in run["passes"]:
        if entry["pass"] == "prune":
            asked = 1 - float(entry["config"]["amount"].partition(":")[2])
            assert abs(entry["metrics"]["reached"] - asked) <= 0.03
            assert entry["metrics"]["proof"]["holds"]
            assert entry["metrics"]["rung"] == "module"
    return run


@pytest.mark.parametrize("name", NAMES)
def test_recipe(cli: Cli, tmp_path: Path, name: str) -> None:
    """Every pass of it works; what it reaches is for the slow one."""
    run_recipe(cli, tmp_path, name, epochs=1, max_steps=8)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("digits_cnn", 90.0), ("digits_vit", 25.0), ("byte_lm", 15.0)])
def test_recipe_learns(cli: Cli, tmp_path: Path, name: str, least: float) -> None:
    run = run_recipe(cli, tmp_path, name, epochs=5, max_steps=40 if name == "byte_lm" else 300)
    final = [
        run["accuracy"]["after"][e["name"]] for e in run["passes"] if e["pass"] in ("finetune", "distill")
    ][-1]
    assert final > least
