"""The plugin as a user's test suite meets it: real pytest processes, real gates."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.nets import mlp

HEAD = "import pytest\n"


def run(place: Path, text: str) -> subprocess.CompletedProcess[str]:
    (place / "test_release.py").write_text(HEAD + text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    plugin = [] if installed() else ["-p", "mlopt.integrations.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *plugin, "test_release.py"]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def installed() -> bool:
    """Whether this environment knows the entry point: an editable install of before it
    existed does not."""
    from importlib.metadata import entry_points

    return any(entry.value == "mlopt.integrations.pytest_plugin" for entry in entry_points(group="pytest11"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("user")
    mlp(place / "old.onnx")
    mlp(place / "new.onnx", seed=1)
    mlp(place / "slow.onnx", layers=6)
    (place / "gate.yaml").write_text(
        "latency: {tolerance: 30%}\ntail: null\nsize: {tolerance: 400%}\nmemory: null\n"
    )
    return place


def test_one_test_a_metric(place: Path) -> None:
    done = run(place, """
@pytest.mark.mlopt_gate(candidate="new.onnx", baseline="old.onnx", policy="gate.yaml")
def test_good(mlopt_gate):
    mlopt_gate.check()

@pytest.mark.mlopt_gate(candidate="slow.onnx", baseline="old.onnx", policy="gate.yaml")
def test_bad(mlopt_gate):
    mlopt_gate.check()
""")  # fmt: skip
    assert "test_good[latency] PASSED" in done.stdout, done.stdout + done.stderr
    assert "test_good[size] PASSED" in done.stdout
    assert "test_bad[latency] FAILED" in done.stdout
    assert (
        "test_bad[size] PASSED" in done.stdout
    )  # the file is larger than the baseline, and less than the policy allows
    assert "FAIL: latency of slow.onnx at batch 1" in done.stdout
    assert "1 failed, 3 passed" in done.stdout


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (
            '@pytest.mark.mlopt_gate(candidate="new.onnx", baseline="old.onnx", polcy="gate.yaml")',
            "does not know polcy",
        ),
        ('@pytest.mark.mlopt_gate(candidate="new.onnx")', "needs candidate= and baseline="),
        (
            '@pytest.mark.mlopt_gate(candidate="new.onnx", baseline="old.onnx", policy="nothing.yaml")',
            "nothing.yaml",
        ),
        ("", "has no mark"),
        (
            '@pytest.mark.mlopt_gate(candidate="nothing.onnx", baseline="old.onnx", policy="gate.yaml")',
            "no such file",
        ),
    ],
)
def test_mistakes_are_said(place: Path, mark: str, words: str) -> None:
    done = run(place, f"{mark}\ndef test_x(mlopt_gate):\n    mlopt_gate.check()\n")
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout


def test_the_plugin_is_light() -> None:
    code = (
        "import sys, mlopt.integrations.pytest_plugin; sys.exit('torch' in sys.modules or 'numpy' in"
        " sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
