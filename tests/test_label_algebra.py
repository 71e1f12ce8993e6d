"""What `docs/label-algebra.md` and "Add an operator" in `docs/pruning.md` say is what happens."""

from __future__ import annotations

import doctest
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "label-algebra.md"


def run(text: str, name: str) -> doctest.TestResults:
    """Run the examples of a page; trailing blanks do not count."""
    test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    said: list[str] = []
    return doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)


def test_the_page_is_what_happens() -> None:
    assert doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


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
