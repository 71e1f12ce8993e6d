"""What `docs/label-algebra.md` and "Add an operator" in `docs/pruning.md` say is what
happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from unittest.mock import patch

import pytest

from mlopt.errors import PassFailed
from mlopt.pruning.rule_table import RULES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGE = DOCS / "label-algebra.md"


def run(text: str, name: str) -> doctest.TestResults:
    """Run the examples of a page; trailing blanks do not count."""
    test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    said: list[str] = []
    return doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)


def test_the_page_is_what_happens() -> None:
    assert (
        doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE).failed
        == 0
    )


def test_the_page_can_fail() -> None:
    """A page that says another union, another shape or another output is found out."""
    text = PAGE.read_text()
    assert run(text, "the page").attempted > 40
    for right, wrong in (
        ("'8 -> 1', '9 -> 2'", "'8 -> 1', '9 -> 1'"),
        ("2.weight (2, 12) -> (2, 8)", "2.weight (2, 12) -> (2, 9)"),
        ("[[47.0, 21.0]]\n    >>> def run", "[[47.0, 22.0]]\n    >>> def run"),
    ):
        assert text.count(right) == 1, right
        assert run(text.replace(right, wrong), "a wrong page").failed == 1, wrong


def operator_section() -> str:
    return (DOCS / "pruning.md").read_text().partition("## Add an operator")[2].partition("\n## ")[0]


def test_an_operator_is_added_as_the_page_says() -> None:
    """Without its rule it is pinned; with the rule the network is pruned and proved;
    then the rule goes again."""
    with patch.dict(RULES):
        ran = run(operator_section(), "add an operator")
        assert ran.failed == 0
        assert ran.attempted > 12
        assert "slope_gate" not in RULES


def test_a_rule_that_says_too_little_is_found_out() -> None:
    section = operator_section().replace(
        "slope_gate", "careless_gate"
    )  # an operator can be defined only once
    line = "    ...     flow.union(picture[1], slope[0])\n"
    assert section.count(line) == 1
    source = "".join(
        example.source for example in doctest.DocTestParser().get_examples(section.replace(line, ""))
    )
    code = compile(source, "page", "exec", dont_inherit=True)
    with patch.dict(RULES), pytest.raises(PassFailed, match="could not be proved"):
        exec(code, {"__name__": "page"})


def test_every_place_that_the_page_names_exists() -> None:
    section = operator_section()
    rules = [f"mlopt/pruning/rules/{name}" for name in re.findall(r"`(\w+\.py)`", section)]
    files = re.findall(r"`((?:mlopt|tests)/[\w/]+\.py)`", section)
    assert len(rules) == len(
        [path for path in (ROOT / "mlopt/pruning/rules").glob("*.py") if path.stem != "__init__"]
    )
    assert all((ROOT / name).is_file() for name in [*rules, *files])
    for file, names in {
        "mlopt/pruning/nodes.py": ("def argument", "def shape", "def op_name"),
        "mlopt/pruning/call_arguments.py": ("def renewed_arguments",),
        "mlopt/pruning/surgery.py": ("def leaf_changes", "LEAVES = "),
        "mlopt/pruning/propagation.py": (
            "def of",
            "def union",
            "def pin",
            "def average",
            "def product",
            "def give_up",
            "self.producers",
        ),
        "tests/test_rules.py": ("def case", "STATISTICS", "def test_every_rule_is_in_a_case"),
    }.items():
        text = (ROOT / file).read_text()
        assert all(name in text for name in names), file
        assert all(re.findall(r"\w+", name)[-1] in section for name in names), file
