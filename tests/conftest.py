"""Shared pieces: small networks, digits, and a way to run the command line in a process
of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes.datasets import digits_arrays
from recipes.networks import ResNet, digits_resnet

ROOT = Path(__file__).resolve().parent.parent
Cli = Callable[..., subprocess.CompletedProcess[str]]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(url: str, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """What a headless Chromium makes of a page: its document on standard output."""
    still = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
    ]
    command = [
        str(CHROMIUM),
        *still,
        *flags,
        f"--user-data-dir={profile}/profile",
        "--virtual-time-budget=8000",
        "--dump-dom",
        url,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def run_json(path: Path) -> dict[str, Any]:
    """`run.json` of a run directory as a script reads it."""
    data: dict[str, Any] = json.loads((path / "run.json").read_text())
    return data


@pytest.fixture(autouse=True, scope="session")
def cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The store of finished passes lies in the user's cache: tests have one of their
    own."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `mlopt` as a user does: in a fresh process, in an empty directory, with an
    empty cache, with the repository importable."""

    def run(
        *arguments: object, cwd: Path = tmp_path, env: dict[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "XDG_CACHE_HOME": str(tmp_path / ".cache"),
            **(env or {}),
        }
        command = [sys.executable, "-m", "mlopt", *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture(scope="session")
def digits_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at 16x16, in a file."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, **digits_arrays(16))
    return path


@pytest.fixture(scope="session")
def model_pt(tmp_path_factory: pytest.TempPathFactory, digits_npz: Path) -> Path:
    """A small residual network that knows the digits a little, pickled as people
    pickle."""
    from mlopt.data.sets import load_data
    from mlopt.recipe.configs import Train
    from mlopt.training.loop import fit
    from mlopt.training.objectives import supervised

    torch.manual_seed(0)
    model: ResNet = digits_resnet(16)
    part = load_data(str(digits_npz)).train
    assert part is not None
    fit(model, part, supervised, Train(epochs=2, lr=3e-3), seed=0)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save(model, path)
    return path


def plain_cnn(channels: int = 3) -> torch.nn.Sequential:
    """Nothing but stock layers: its pickle needs no flag."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 32, 3, padding=1),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
    )
