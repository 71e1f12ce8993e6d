"""The hash of a model's own code: what changes it, and what does not."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from mlopt.errors import ModelRefused, UsageError
from mlopt.model import bundle
from mlopt.model.code import code_sha256
from mlopt.model.origin import FactoryOrigin, StructureOrigin
from mlopt.model.trust import Trust
from tests.conftest import ROOT, plain_cnn

FILES = {
    "project/__init__.py": "",
    "project/nets/__init__.py": "from project.nets.net import Net",
    "project/nets/net.py": (
        """
        import torch
        from torch import nn
        from .. import helper
        from .base import Base

        class Net(Base):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 4)

            def forward(self, x):
                return helper.twice(self.layer(x))

        def make():
            return Net()
    """
    ),
    "project/nets/base.py": (
        """
        from torch import nn

        class Base(nn.Module):
            def lazily(self):
                from project.deep import late
                return late
    """
    ),
    "project/helper.py": (
        "import project.deep.constants as constants\ndef twice(x):\n    return x * constants.TWO\n"
    ),
    "project/deep/__init__.py": "",
    "project/deep/constants.py": "TWO = 2\n",
    "project/deep/late.py": "",
    "project/unrelated.py": "X = 1\n",
    "beside.py": "Y = 1\n",
}
ALLOWED = Trust(allow_class=("project.nets.*",))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "project"]:
        del sys.modules[name]


def structure_of() -> StructureOrigin:
    origin = bundle.origin_of(importlib.import_module("project.nets.net").Net())
    assert isinstance(origin, StructureOrigin)
    return origin


@pytest.mark.parametrize("factory", [True, False])
@pytest.mark.parametrize(
    ("edited", "counts"),
    [
        ("project/nets/net.py", True),
        ("project/nets/base.py", True),
        ("project/helper.py", True),
        ("project/deep/constants.py", True),
        ("project/deep/late.py", True),
        ("project/nets/__init__.py", True),  # runs when the class is imported
        ("project/__init__.py", True),
        ("project/unrelated.py", False),
        ("beside.py", False),
    ],
)
def test_what_the_network_runs_is_in_the_hash(
    project: Path, edited: str, counts: bool, factory: bool
) -> None:
    origin = FactoryOrigin("project.nets.net:make") if factory else structure_of()
    trust = Trust(arch="project.nets.net:make") if factory else ALLOWED
    before = code_sha256(origin, trust)
    assert code_sha256(origin, trust) == before
    with (project / edited).open("a") as stream:
        stream.write("\n# edited\n")
    assert (code_sha256(origin, trust) != before) is counts


def test_the_hash_does_not_depend_on_the_place(project: Path, tmp_path: Path) -> None:
    code = (
        "from mlopt.model.code import code_sha256; from mlopt.model.origin import FactoryOrigin; from"
        " mlopt.model.trust import Trust;print(code_sha256(FactoryOrigin('project.nets.net:make'),"
        " Trust(trust_code=True)))"
    )
    moved = tmp_path / "moved"
    moved.mkdir()
    (project / "project").rename(moved / "project")
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=moved,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    (moved / "project").rename(project / "project")
    here = code_sha256(FactoryOrigin("project.nets.net:make"), Trust(trust_code=True))
    assert there.stdout.strip() == here


def test_stock_layers_and_graphs_have_no_code_of_their_own() -> None:
    cut = nn.Sequential(nn.Linear(2, 2), nn.TransformerEncoderLayer(16, 4, 32))
    nodes = torch.fx.Graph()
    nodes.output(nodes.placeholder("x"))
    graph = torch.fx.GraphModule(nn.Module(), nodes)
    assert len({code_sha256(bundle.origin_of(module), Trust()) for module in (plain_cnn(), cut, graph)}) == 1


def test_code_is_not_imported_unasked(project: Path) -> None:
    origin = structure_of()
    del sys.modules["project.nets.net"]
    for refused, flag in (
        (origin, "--allow-class project.nets.net.Net"),
        (FactoryOrigin("project.nets.net:make"), "--arch"),
    ):
        with pytest.raises(ModelRefused) as error:
            code_sha256(refused, Trust())
        assert flag in error.value.hint
    assert "project.nets.net" not in sys.modules
    with pytest.raises(UsageError):
        code_sha256(FactoryOrigin("project.nets.none:make"), Trust(trust_code=True))


def test_a_class_without_a_file_is_named(project: Path) -> None:
    """Two such classes differ by their names; nothing else is known of them."""
    module = importlib.import_module("project.unrelated")
    hashes = set()
    for name in ("One", "Two"):
        kind = type(name, (nn.Module,), {"__module__": "project.unrelated"})
        setattr(module, name, kind)
        origin = bundle.origin_of(kind())
        module.__file__ = None
        hashes.add(code_sha256(origin, Trust(trust_code=True)))
    assert len(hashes) == 2
    assert code_sha256(bundle.origin_of(plain_cnn()), Trust()) not in hashes
