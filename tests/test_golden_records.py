"""What scripts read: every key of the records that were written before they had types
is still there.

`tests/golden/*.txt` hold key paths, one a line (`rows[].ratio.low`), of records that
the code before had written. Only what was written by a command is compared: values,
order and new keys are free.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import JsonValue

from mlopt.judging import selftest
from mlopt.judging.policy import Policy
from mlopt.judging.run import Gate
from mlopt.measuring.environment import fingerprint
from mlopt.model.trust import Trust
from mlopt.records.edge import to_json
from mlopt.records.gate import SelfTestFile
from tests.conftest import Cli, plain_cnn
from tests.nets import mlp

GOLDEN = Path(__file__).parent / "golden"
OPEN = ("versions",)
"""Objects whose keys differ from machine to machine."""


def key_paths(data: JsonValue, prefix: str = "") -> set[str]:
    """The path of every value: keys joined by dots, `[]` for the items of a list."""
    out: set[str] = set()
    if isinstance(data, dict):
        for key, value in data.items():
            path = f"{prefix}.{key}" if prefix else key
            out |= {path} | (set() if key in OPEN else key_paths(value, path))
    elif isinstance(data, list):
        for value in data:
            out |= key_paths(value, f"{prefix}[]")
    return out


def golden(name: str) -> set[str]:
    """The paths that were written down."""
    return set((GOLDEN / f"{name}.txt").read_text().split())


def strict(text: str) -> JsonValue:
    """JSON as every reader understands it: without NaN and infinities."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    data: JsonValue = json.loads(text, parse_constant=refuse)
    return data


def write_golden(name: str, file: Path) -> None:
    """Write down the paths of a record. Run it only with the code whose keys are the
    promise."""
    (GOLDEN / f"{name}.txt").write_text("\n".join(sorted(key_paths(strict(file.read_text())))) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("golden")
    mlp(place / "old.onnx", hidden=128)
    mlp(place / "new.onnx", hidden=128, seed=1)
    draw = np.random.default_rng(0)
    np.savez(place / "d.npz", x=draw.standard_normal((50, 64)).astype(np.float32), y=draw.integers(0, 10, 50))
    return place


def test_the_records_of_a_gate(place: Path, cli: Cli) -> None:
    """Verdict, samples, and the history of such verdicts."""
    out = place / "gates" / "1"
    tolerances = (
        "--max-latency",
        "100%",
        "--max-tail",
        "300%",
        "--max-drop",
        "200",
        "--data",
        "d.npz",
        "--budget",
        "2",
    )
    done = cli("gate", "new.onnx", "--baseline", "old.onnx", *tolerances, "-o", out, "--json", cwd=place)
    assert done.returncode in (0, 1, 5), done.stderr
    assert golden("gate") <= key_paths(strict(done.stdout))
    assert golden("gate") <= key_paths(strict((out / "gate.json").read_text()))
    assert golden("samples") <= key_paths(strict((out / "samples.jsonl").read_text().splitlines()[0]))
    history = cli("history", "gates", "--json", cwd=place)
    assert golden("history") <= key_paths(strict(history.stdout))


def test_the_record_of_a_baseline(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlopt.judging.stored.STORED_S", 0.3)
    Gate(Policy(), Trust()).save_baseline(str(place / "old.onnx"), place / "baseline.json")
    assert golden("manifest") <= key_paths(strict((place / "baseline.json").read_text()))


def test_the_records_of_a_bench(place: Path, cli: Cli) -> None:
    """Rows as a file, and merged with those of other machines."""
    done = cli(
        "bench",
        "old.onnx",
        "new.onnx",
        "--sessions",
        "2",
        "--budget",
        "0.3",
        "-o",
        "bench.json",
        "--json",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert golden("bench") <= key_paths(strict(done.stdout))
    assert golden("bench") <= key_paths(strict((place / "bench.json").read_text()))
    merged = cli("bench", "--merge", "bench.json", "--json", cwd=place)
    assert golden("merged") <= key_paths(strict(merged.stdout))


def test_the_record_of_a_self_test(place: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = selftest.Profile(0.5, 2.0)
    monkeypatch.setattr(selftest, "PROFILES", {"default": quick, "strict": quick})
    written = to_json(SelfTestFile(environment=fingerprint(), self_test=tuple(selftest.self_test(0.1))))
    assert golden("selftest") <= key_paths(written)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("run-latency", ("--prune", "latency:0.7")),
        ("run-zeros", ("--prune", "0.5", "--sparsity", "unstructured")),
    ],
)
def test_a_run_that_measures_what_it_prunes(
    cli: Cli, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    torch.save(plain_cnn(1), tmp_path / "model.pt")
    done = cli(
        "compress",
        "model.pt",
        "--input",
        "batch,1,16,16",
        *options,
        "--export",
        "onnx",
        "--budget",
        "0.3",
        "-o",
        "run",
    )
    assert done.returncode == 0, done.stderr
    assert golden(name) <= key_paths(strict((tmp_path / "run" / "run.json").read_text()))
