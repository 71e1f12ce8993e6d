"""How large things may be: files, signatures, and how often a dictionary stands where a
type should."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "mlopt").rglob("*.py"))
MOST_LINES = 350
MOST_PARAMETERS = 8
MOST_DICTIONARIES = 60


def too_many_parameters(source: str) -> list[str]:
    """Functions with more than eight parameters, `self` not counted; a click command
    has one for each option."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [
                a.arg
                for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                if a.arg not in ("self", "cls")
            ]
            names += [a.arg for a in (node.args.vararg, node.args.kwarg) if a is not None]
            if len(names) > MOST_PARAMETERS and not any(
                ".command(" in ast.unparse(decorator) for decorator in node.decorator_list
            ):
                found.append(f"{node.name}: {len(names)}")
    return found


def test_no_file_is_long() -> None:
    assert not {str(path): n for path in FILES if (n := len(path.read_text().splitlines())) > MOST_LINES}


def test_no_signature_is_long() -> None:
    found = {f"{path.name}: {what}" for path in FILES for what in too_many_parameters(path.read_text())}
    assert not found
    assert too_many_parameters("def f(a, b, c, d, e, f, g, h, *, i): ...") == ["f: 9"]
    assert too_many_parameters("@a_command\ndef f(a, b, c, d, e, f, g, *h, **i): ...") == ["f: 9"]
    assert not too_many_parameters("@main.command('f')\ndef f(a, b, c, d, e, f, g, h, i): ...")


def test_types_instead_of_dictionaries() -> None:
    assert (
        sum("dict[str, Any]" in line for path in FILES for line in path.read_text().splitlines())
        <= MOST_DICTIONARIES
    )
