"""The layers of docs/architecture.md, held by walking the imports; and what must not import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mlopt"

# Highest first. A module may import from its own layer and from lower ones.
LAYERS = (
    ("cli", "__main__", "api", "inspection", "viewer", "pytest_plugin"),
    ("pipeline", "intake", "judging", "history", "check", "plan", "synthesis", "report"),
    ("passes", "measuring", "parity"),
    ("context",),
    ("training", "pruning", "quantization", "runtimes", "model", "data"),
    ("artifact", "record", "recipe", "typed_yaml", "store", "processes", "quiet", "errors", "__init__"),
)
WITHOUT_TORCH = (
    "mlopt",
    "mlopt.errors",
    "mlopt.record",
    "mlopt.recipe",
    "mlopt.report.write",
    "mlopt.cli.main",
    "mlopt.plan",
    "mlopt.synthesis",
    "mlopt.judging.policy",
    "mlopt.judging.verdict",
)


def room(module: str) -> str:
    """`mlopt.pruning.rules.linear` lives in the room `pruning`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def level(module: str) -> int:
    for index, rooms in enumerate(LAYERS):
        if room(module) in rooms:
            return index
    raise AssertionError(f"{module} is in no layer: add its room to LAYERS and to docs/architecture.md")


def imports() -> list[tuple[str, str]]:
    """Every import of mlopt by mlopt, at the top of a module or inside a function."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(["mlopt", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mlopt":
                targets = [node.module]
                if node.module == "mlopt":
                    targets = [
                        f"mlopt.{alias.name}" if (PACKAGE / alias.name).exists() or (PACKAGE / f"{alias.name}.py").exists() else "mlopt"
                        for alias in node.names
                    ]
                found += [(name, target) for target in targets]
            elif isinstance(node, ast.Import):
                found += [(name, alias.name) for alias in node.names if alias.name.split(".")[0] == "mlopt"]
    return found


def test_imports_point_down() -> None:
    up = [(a, b) for a, b in imports() if a != "mlopt" and level(a) > level(b)]
    assert not up, f"these imports point up: {up}"


def test_passes_do_not_import_each_other() -> None:
    across = [(a, b) for a, b in imports() if room(a) == "passes" == room(b) and a != b and b != "mlopt.passes.base" and a != "mlopt.passes"]
    assert not across


def test_the_walk_sees_imports() -> None:
    assert ("mlopt.pipeline", "mlopt.store") in imports()
    assert len(imports()) > 100


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_answers_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0
