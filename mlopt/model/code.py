"""The source code that a module runs, as one hash: an edited `forward` must not be
served what the old one gave.

Hashed are the files of the module's own classes, of their base classes, and of the
factory, and from each of these every file of the same project that it imports, and so
on. PyTorch's classes and those of mlopt do not count: their versions are known
elsewhere.

Not seen: what is imported by name at run time (`importlib`), files that are read and
not imported, compiled extensions, methods that were replaced on a live object, and
installed packages beyond the files of the classes themselves (a change there comes with
another version of the package).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlopt.artifact import digest_of
from mlopt.model.allowlist import resolve, resolve_factory
from mlopt.model.origin import FactoryOrigin, Origin, StructureOrigin, check
from mlopt.model.structure import full_name
from mlopt.model.trust import Trust

NO_SOURCE = "no source"
"""Stands for the hash of a class that has no file of Python: one made in a console, or
compiled."""

KNOWN_ELSEWHERE = ("torch", "mlopt", "builtins")
INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class _Source:
    """A file of Python. `name`: of its module; `root`: the directory in which the
    module's package lies."""

    name: str
    file: Path
    root: Path

    @property
    def is_package(self) -> bool:
        return self.file.name == "__init__.py"


def code_sha256(origin: Origin, trust: Trust) -> str:
    """The hash of the code that a bundle of this origin runs; the same for all that
    need no code of their own.

    Imports what loading the bundle imports, and only if `trust` allows it; calls
    nothing. Raises `ModelRefused` for what it does not allow, `UsageError` for what
    does not exist here.
    """
    check(origin, trust, "the bundle")
    found: dict[str, str] = {}
    if isinstance(origin, FactoryOrigin):
        module = origin.factory.partition(":")[0]
        resolve_factory(origin.factory)
        _add(module, origin.factory, found)
    elif isinstance(origin, StructureOrigin):
        for name in origin.structure.classes():
            if not _known_elsewhere(name):
                kind = resolve(name)
                for base in kind.__mro__ if isinstance(kind, type) else (kind,):
                    _add(base.__module__, full_name(base), found)
    return digest_of(found)


def files_of_modules(modules: Iterable[str]) -> dict[str, str]:
    """The hashes of the files of imported modules and of what they import of their own
    project, by module; a module without a file of Python has `NO_SOURCE`."""
    found: dict[str, str] = {}
    for module in sorted(set(modules)):
        _add(module, module, found)
    return found


def _known_elsewhere(name: str) -> bool:
    return name.partition(".")[0] in KNOWN_ELSEWHERE


def _add(module: str, what: str, found: dict[str, str]) -> None:
    """Hash the file of an imported module and what it imports of its own project.
    `what`: how it is named without one."""
    if _known_elsewhere(module):
        return
    source = _imported(module)
    if source is None:
        found[what] = NO_SOURCE
        return
    waiting = [source]
    while waiting:
        source = waiting.pop()
        if source.name in found:
            continue
        data = source.file.read_bytes()
        found[source.name] = hashlib.sha256(data).hexdigest()
        if not _installed(source.file):
            names = [*_packages(source.name), *_imports(source, data)]
            waiting += [other for name in names if (other := _in_project(name, source.root)) is not None]


def _installed(file: Path) -> bool:
    """Whether a file belongs to an installed package or to Python itself, and not to
    the user's project."""
    return bool(INSTALLED & set(file.parts)) or file.is_relative_to(sysconfig.get_paths()["stdlib"])


def _imported(module: str) -> _Source | None:
    """The file of a module that is imported already; None when it has none that is
    Python."""
    file = getattr(sys.modules.get(module) or importlib.import_module(module), "__file__", None)
    if file is None or not file.endswith(".py") or not Path(file).is_file():
        return None
    path = Path(file).resolve()
    depth = module.count(".") + (1 if path.name == "__init__.py" else 0)
    return _Source(module, path, path.parents[min(depth, len(path.parents) - 1)])


def _in_project(module: str, root: Path) -> _Source | None:
    """The file of a module below `root`; None when it is not there. Nothing is
    imported."""
    if _known_elsewhere(module):
        return None
    base = root.joinpath(*module.split("."))
    for file in (base / "__init__.py", base.with_suffix(".py")):
        if file.is_file():
            return _Source(module, file, root)
    return None


def _imports(source: _Source, data: bytes) -> Iterator[str]:
    """Every module that a file may import, wherever in it the import stands, each with
    the packages that it lies in."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return  # it cannot be imported either
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source, node)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]  # a name may be a module
        else:
            continue
        for name in names:
            yield from _packages(name)
            yield name


def _packages(module: str) -> list[str]:
    """`a` and `a.b` for `a.b.c`: they run when it is imported."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _absolute(source: _Source, node: ast.ImportFrom) -> str:
    """`from ..a import b` as `package.a`."""
    if not node.level:
        return node.module or ""
    package = source.name.split(".")
    package = package[: len(package) - node.level + (1 if source.is_package else 0)]
    return ".".join([*package, *([node.module] if node.module else [])])
