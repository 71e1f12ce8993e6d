"""The fingerprint of data: other data is another fingerprint, the same data the same
one, also in another process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from mlopt.data.sets import Data, adopt


class OnDisk(Dataset[Any]):
    """Reads a file a sample."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(np.load(Path(self.root) / f"{index}.npy")), index % 2


class Opaque(IterableDataset[Any]):
    """Holds an open file, which nobody can look into."""

    def __init__(self, values: torch.Tensor, file: Path) -> None:
        self.file, self._values = file.open("rb"), values

    def __iter__(self) -> Any:
        for value in self._values:
            yield value[None], torch.tensor([0])


def fingerprint(source: Any) -> str:
    return adopt(Data(train=source)).fingerprint


def tensors(at: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """500 samples; one label far behind the first ones is another where asked."""
    x, y = torch.arange(2000.0).reshape(500, 4), torch.arange(500) % 3
    if at is not None:
        y[at] += 1
    return x, y


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: TensorDataset(x, y),
        lambda x, y: Subset(TensorDataset(x, y), list(range(0, 500, 2))),
        lambda x, y: DataLoader(TensorDataset(x, y), batch_size=16),
        lambda x, y: [(x[i : i + 50], y[i : i + 50]) for i in range(0, 500, 50)],
    ],
    ids=["dataset", "subset", "loader", "batches"],
)
def test_a_label_behind_the_first_samples_is_other_data(make: Callable[..., Any]) -> None:
    assert fingerprint(make(*tensors())) == fingerprint(make(*tensors()))
    assert fingerprint(make(*tensors())) != fingerprint(make(*tensors(at=498)))
    x, y = tensors()
    assert fingerprint(make(x, y)) != fingerprint(make(x[:400], y[:400])), "fewer samples"


def test_what_a_transform_calls_is_part_of_the_data() -> None:
    whole = TensorDataset(*tensors())

    def loader(fold: Any) -> str:
        return fingerprint(DataLoader(whole, batch_size=8, collate_fn=fold))

    def by(scale: float, *, shift: float = 0.0) -> Any:
        return lambda b: scale * torch.stack([p[0] for p in b]) + shift

    assert loader(lambda b: torch.sin(torch.stack([p[0] for p in b]))) != loader(
        lambda b: torch.cos(torch.stack([p[0] for p in b]))
    )
    assert loader(by(1.0)) == loader(by(1.0)) != loader(by(2.0))
    assert loader(by(1.0)) != loader(by(1.0, shift=1.0))


def test_which_samples_a_loader_gives_is_part_of_the_data() -> None:
    whole = TensorDataset(*tensors())
    halves = [DataLoader(whole, sampler=SubsetRandomSampler(part)) for part in (range(200), range(200, 400))]
    assert fingerprint(halves[0]) != fingerprint(halves[1])


def test_another_subset_and_another_transform_are_other_data() -> None:
    whole = TensorDataset(*tensors())
    assert fingerprint(Subset(whole, [1, 2, 3])) != fingerprint(Subset(whole, [1, 2, 4]))
    loaders = [
        DataLoader(whole, batch_size=8, collate_fn=fold)
        for fold in (lambda b: torch.stack([p[0] for p in b]), lambda b: torch.stack([2 * p[0] for p in b]))
    ]
    assert fingerprint(loaders[0]) != fingerprint(loaders[1])


@pytest.mark.parametrize("relative", [False, True])
def test_a_file_that_changed_is_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    """Also one behind the first samples, in a directory that an attribute names."""
    (tmp_path / "d").mkdir()
    for index in range(80):
        np.save(tmp_path / "d" / f"{index}.npy", np.zeros(4, np.float32))
    monkeypatch.chdir(tmp_path)
    place = Path("d") if relative else tmp_path / "d"
    before = fingerprint(OnDisk(place))
    assert fingerprint(OnDisk(place)) == before
    np.save(tmp_path / "d" / "79.npy", np.ones(4, np.float32))
    assert fingerprint(OnDisk(place)) != before


def test_what_cannot_be_looked_into_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    values = torch.zeros(300, 4)
    before = fingerprint(Opaque(values, tmp_path / "f"))
    assert fingerprint(Opaque(values, tmp_path / "f")) == before
    values[299] = 1
    assert fingerprint(Opaque(values, tmp_path / "f")) != before


def test_edited_code_is_other_data_and_the_same_is_the_same_in_another_process(tmp_path: Path) -> None:
    """The method itself, a constant beside it, and a helper in another file."""
    code = textwrap.dedent("""
        import torch
        from torch.utils.data import Dataset
        from helper import shifted
        FACTOR = 1
        class Mine(Dataset):
            def __init__(self): self.x, self.names = torch.arange(200.).reshape(100, 2), {"one", "two", "three"}
            def __len__(self): return 100
            def __getitem__(self, index): return shifted(self.x[index] * 1 * (FACTOR if index > 90 else 1), index), 0
    """)
    helper = "def shifted(x, index): return x + (0 if index > 90 else 1)"
    show = (
        "from mlopt.data.sets import Data, adopt; from mine import Mine;"
        " print(adopt(Data(train=Mine())).fingerprint)"
    )

    def ask(text: str, beside: str = helper) -> str:
        (tmp_path / "mine.py").write_text(text)
        (tmp_path / "helper.py").write_text(beside)
        done = subprocess.run(
            [sys.executable, "-B", "-c", show], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    first = ask(code)
    assert ask(code) == first
    assert ask(code.replace("* 1 *", "* 2 *")) != first
    assert ask(code.replace("FACTOR = 1", "FACTOR = 2")) != first
    assert ask(code, helper.replace("(0 if", "(9 if")) != first
