"""The rooms of docs/architecture.md, held by walking the imports; and what must not
import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mlopt"

# Highest first. A file may import from its own room and from rooms on lower floors;
# rooms on one floor do not import each other.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("integrations",),
    ("api",),
    ("judging",),
    ("run",),
    ("report",),
    ("passes",),
    ("measuring",),
    ("checking",),
    ("exporting",),
    ("training",),
    ("pruning", "quantization", "runtimes", "data"),
    ("model",),
    ("recipe",),
    ("records",),
    ("system",),
    ("artifact", "catalog"),
    ("errors",),
    ("__init__",),
)
LOOSE = {"__init__.py", "__main__.py", "api.py", "artifact.py", "catalog.py", "errors.py"}
WITHOUT_TORCH = (
    "mlopt",
    "mlopt.errors",
    "mlopt.catalog",
    "mlopt.records.run",
    "mlopt.records.gate",
    "mlopt.run.store",
    "mlopt.recipe.schema",
    "mlopt.recipe.order",
    "mlopt.recipe.from_options",
    "mlopt.report.write",
    "mlopt.judging.policy",
    "mlopt.judging.verdict",
    "mlopt.judging.history",
    "mlopt.integrations.pytest_plugin",
    "mlopt.cli.main",
)
Import = tuple[str, str]


def room(module: str) -> str:
    """`mlopt.pruning.rules.linear` lives in the room `pruning`; `mlopt` itself is
    `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floor(module: str) -> int:
    """0 is the lowest."""
    for index, rooms in enumerate(reversed(FLOORS)):
        if room(module) in rooms:
            return index
    raise AssertionError(f"{module} is in no room: add its room to FLOORS and to docs/architecture.md")


def imports_of(source: str, name: str) -> list[Import]:
    """Every import of mlopt in one file: at the top, inside functions, under `if
    TYPE_CHECKING`, and relative ones."""
    found = []
    package = name.split(".") if name.endswith("__init__") else name.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
                )
            if base.split(".")[0] == "mlopt":
                found += [(name, target) for target in _targets(base, [alias.name for alias in node.names])]
        elif isinstance(node, ast.Import):
            found += [(name, alias.name) for alias in node.names if alias.name.split(".")[0] == "mlopt"]
    return found


def _targets(base: str, names: list[str]) -> Iterable[str]:
    """`from mlopt.records import run` imports a module, `from mlopt.artifact import
    Format` does not."""
    place = PACKAGE.parent.joinpath(*base.split("."))
    for name in names:
        yield f"{base}.{name}" if (place / name).is_dir() or (place / f"{name}.py").is_file() else base


def imports() -> list[Import]:
    found = []
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(["mlopt", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        found += imports_of(path.read_text(), name)
    return found


def upward(found: Iterable[Import]) -> list[Import]:
    """Imports of a higher floor, or of another room on the same floor."""
    return [(a, b) for a, b in found if a != "mlopt" and room(a) != room(b) and floor(b) >= floor(a)]


def circles(found: Iterable[Import]) -> list[tuple[str, str]]:
    """Pairs of rooms that reach each other."""
    arrows: dict[str, set[str]] = {}
    for a, b in found:
        if room(a) != room(b) and "__init__" not in (room(a), room(b)):
            arrows.setdefault(room(a), set()).add(room(b))

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        stack = [start]
        while stack:
            for there in arrows.get(stack.pop(), set()) - seen:
                seen.add(there)
                stack.append(there)
        return seen

    return [(a, b) for a in arrows for b in arrows if a < b and b in reach(a) and a in reach(b)]


def test_imports_point_down() -> None:
    assert not upward(imports())


def test_no_circles_between_rooms() -> None:
    assert not circles(imports())


def test_nothing_lies_loose() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == LOOSE
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))} <= {
        r for rooms in FLOORS for r in rooms
    }


def test_passes_do_not_import_each_other() -> None:
    shared = ("mlopt.passes.base", "mlopt.passes.context")
    assert not [
        (a, b)
        for a, b in imports()
        if room(a) == "passes" == room(b) and a != b and b not in shared and a != "mlopt.passes"
    ]


def test_the_walk_sees_what_is_hidden() -> None:
    source = (
        "def f():\n    from mlopt.cli import main\n    from . import labels\n    import mlopt.run.store\n"
    )
    found = imports_of(source, "mlopt.pruning.engine")
    assert found == [
        ("mlopt.pruning.engine", "mlopt.cli.main"),
        ("mlopt.pruning.engine", "mlopt.pruning.labels"),
        ("mlopt.pruning.engine", "mlopt.run.store"),
    ]
    assert len(upward(found)) == 2
    assert circles(
        [
            ("mlopt.model.a", "mlopt.pruning.b"),
            ("mlopt.pruning.c", "mlopt.data.d"),
            ("mlopt.data.e", "mlopt.model.f"),
        ]
    )
    assert len(imports()) > 300


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_answers_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0
