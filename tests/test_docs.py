"""The documents say what is there: their code runs, their paths exist, their functions
are defined."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from mlopt import catalog
from mlopt.cli.main import main
from tests.conftest import ROOT, run_json

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HOME = r"(?:mlopt|docs|tests|recipes|benchmarks)"


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


# --- docs/extending.md: what it says is run


def blocks(text: str, language: str) -> list[str]:
    """Every fenced block of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def files_of(text: str) -> dict[str, str]:
    """The Python blocks by the file that their first line names."""
    found = {}
    for block in blocks(text, "python"):
        first = block.splitlines()[0]
        assert re.fullmatch(r"# ours/\w+\.py", first), f"this block names no file: {first}"
        found[first.removeprefix("# ")] = block
    return found


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the document, imported and so registered; a directory with a model
    and the recipe."""
    for name, code in files_of(text_of("extending.md")).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), "model.pt")
    (recipe,) = blocks(text_of("extending.md"), "yaml")
    Path("recipe.yaml").write_text(recipe)
    package = __import__("ours")
    yield tmp_path
    catalog.unregister(package.PASS)
    catalog.unregister(package.RUNTIME)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ours"]:
        del sys.modules[name]


@pytest.mark.usefixtures("ours")
def test_the_pass_and_the_runtime_of_the_document_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipe.yaml", "-o", "run"]) == 0, capfd.readouterr().err
    run = run_json(Path("run"))
    entry = run["passes"][0]
    assert (entry["pass"], entry["status"], entry["metrics"]["arrays"]) == ("npz", "ok", 4)
    artifact = run["artifacts"][0]
    assert (artifact["format"], artifact["path"]) == ("npz", "exports/model.npz")
    assert Path("run/exports/model.npz").is_file()
    assert artifact["parity"]["max_error"] < 1e-6
    row = next(row for row in run["bench"] if row["artifact"] == "model.npz")
    assert (row["runtime"], row["speedup"]["against"]) == ("npz", "eager dense")
    for report in ("run/report.md", "run/report.html"):
        assert "npz: it holds 4 arrays." in Path(report).read_text()


@pytest.mark.usefixtures("ours")
def test_the_document_is_right_about_what_fails() -> None:
    recipe = Path("recipe.yaml")
    wrong = recipe.read_text().replace("{pass: npz}", "{pass: npz, decimals: 0}")
    assert "`{pass: npz, decimals: 0}`" in text_of("extending.md")
    recipe.write_text(wrong)
    assert main(["run", "recipe.yaml", "-o", "run"]) == 3
    assert run_json(Path("run"))["passes"][0]["status"] == "failed"
    assert not Path("run/exports/model.npz").exists()


def test_the_package_of_the_document_is_a_command(ours: Path) -> None:
    """In a process of its own, which must find the pass by importing the package."""
    command = [sys.executable, "-m", "ours", "run", "recipe.yaml", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ours), str(ROOT)))}
    done = subprocess.run(
        command, cwd=ours, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1. npz" in done.stdout


# --- every document: paths and functions


def named_paths(text: str) -> list[str]:
    """Paths of the repository in backticks; `a.py: function` names the path too."""
    return re.findall(rf"`({HOME}/[\w./-]*)(?::[^`]*)?`", text)


def named_functions(text: str) -> list[tuple[str, str]]:
    """(path, dotted name) of every `path.py: name` in backticks."""
    return re.findall(rf"`({HOME}/[\w./-]+\.py):\s+([\w.]+)`", text)


def defined(path: Path) -> set[str]:
    """Names that a file defines: functions, classes, assigned names, and
    `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)
            }
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def wrong_paths(text: str) -> list[str]:
    return [path for path in named_paths(text) if not (ROOT / path).exists()]


def wrong_functions(text: str) -> list[str]:
    return [
        f"{path}: {name}"
        for path, name in named_functions(text)
        if not (ROOT / path).is_file() or name not in defined(ROOT / path)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    assert wrong_paths(text) == []
    assert wrong_functions(text) == []


def test_the_walkthrough_names_functions_of_every_room_it_goes_through() -> None:
    named = named_functions(text_of("walkthrough.md"))
    assert len(named) >= 20
    rooms = {path.split("/")[1] for path, _ in named}
    assert {"run", "passes", "exporting", "report", "pruning", "training", "quantization"} <= rooms


def test_a_wrong_document_is_found() -> None:
    text = (
        "See `mlopt/run/runner.py: run`, `mlopt/run/runner.py: walk`, `mlopt/pipeline.py` and `docs/`;"
        " `mlopt/run/store.py: Store.publish`, `mlopt/run/store.py: Store.paint`."
    )
    assert wrong_paths(text) == ["mlopt/pipeline.py"]
    assert wrong_functions(text) == ["mlopt/run/runner.py: walk", "mlopt/run/store.py: Store.paint"]


# --- docs/glossary.md


def words_of(text: str) -> list[tuple[str, str]]:
    """(word, what is said of it) of every paragraph that begins with a word in bold."""
    return re.findall(r"^\*\*(.+?)\*\*: (.+?)(?:\n\n|\n*\Z)", text, re.MULTILINE | re.DOTALL)


def wrong_words(text: str) -> list[str]:
    """Words that stand twice, or are out of the alphabet's order, or have no home."""
    words = [word for word, _ in words_of(text)]
    wrong = [f"{word} twice" for word in sorted({word for word in words if words.count(word) > 1})]
    wrong += [f"{word} not in order" for before, word in itertools.pairwise(words) if word < before]
    return wrong + [f"{word} has no home" for word, rest in words_of(text) if not named_paths(rest)]


MUST = """artifact, bundle, package, trunk, leaf, pass, recipe, run directory, store, action key, dense module, finding,
parity, baseline, candidate, verdict, policy, interval, generation, contender, workload, plan, label, channel class, rung,
surgery, proof, calibration, target, precision, backend, epoch"""


def test_the_glossary_has_each_word_once() -> None:
    words = [word for word, _ in words_of(text_of("glossary.md"))]
    assert len(words) >= 25
    assert set(re.split(r",\s+", MUST)) - set(words) == set()
    assert wrong_words(text_of("glossary.md")) == []


def test_a_wrong_glossary_is_found() -> None:
    text = "**b**: A b. (`docs/gate.md`)\n\n**a**: An a. (`docs/gate.md`)\n\n**a**: Again, nowhere.\n"
    assert wrong_words(text) == ["a twice", "a not in order", "a has no home"]
