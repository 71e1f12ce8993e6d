"""The loop, its objectives, and several processes that must act as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import mlopt
from mlopt.checking.accuracy import evaluate, score
from mlopt.data.sets import Arrays, DataSet, Part, check_labels, load_data
from mlopt.errors import DataError, PassFailed
from mlopt.model import bundle
from mlopt.model.sources import adopt
from mlopt.model.tensors import canonical
from mlopt.model.trust import Trust
from mlopt.recipe.configs import Train
from mlopt.training.distributed import TrainJob, train_in_processes
from mlopt.training.loop import World, fit, recalibrate_batch_norm, schedule
from mlopt.training.objectives import distillation, supervised
from recipes.networks import digits_resnet
from tests.conftest import plain_cnn

CONFIG = Train(epochs=1, batch_size=32, lr=0.05, optimizer="sgd", max_steps=10)


def data_of(path: Path) -> DataSet:
    return load_data(str(path))


def job_for(place: Path, data: Path, seed: int) -> TrainJob:
    """Training of the bundle in `place/b`."""
    trust = Trust(allow_class=("recipes.networks.*",))
    out = place / "out.safetensors"
    return TrainJob(place / "b", place / "b", trust, CONFIG, str(data), seed, "cpu", 1, out)


def test_two_processes_give_one_processs_weights(tmp_path: Path, digits_npz: Path) -> None:
    """10 steps with batch normalisation, which must be synchronised for this to hold.

    The activation is smooth: a ReLU that sits on its kink flips with the order of
    summation, which is rounding and not a fault.
    """
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    (tmp_path / "b").mkdir()
    bundle.write(tmp_path / "b", *adopt(module).trunk())
    job = job_for(tmp_path, digits_npz, seed=3)
    lines: list[str] = []
    report = train_in_processes(job, 2, lines.append)
    part = data_of(digits_npz).train
    assert part is not None
    done = fit(module, part, supervised, CONFIG, seed=3)
    assert report.steps == done.steps == 10
    assert lines
    both, one = load_file(tmp_path / "out.safetensors"), canonical(module)
    worst = max(float((both[name].double() - one[name].detach().double()).abs().max()) for name in both)
    assert worst <= 1e-5, worst


def test_a_process_that_dies_is_reported_with_its_words(tmp_path: Path, digits_npz: Path) -> None:
    (tmp_path / "b").mkdir()
    bundle.write(tmp_path / "b", *adopt(plain_cnn()).trunk())  # takes three channels, the digits have one
    job = job_for(tmp_path, digits_npz, seed=0)
    with pytest.raises(PassFailed, match="channels"):
        train_in_processes(job, 2, lambda line: None)


def test_slices_of_all_processes_are_the_batch() -> None:
    batch = ((torch.arange(13),), torch.arange(13))
    parts = [World(rank, 4).share(batch) for rank in range(4)]
    assert torch.cat([part[0][0] for part in parts]).tolist() == list(range(13))


def test_a_teacher_pulls_its_student_towards_it() -> None:
    x = torch.randn(64, 6)
    teacher, student = nn.Linear(6, 4), nn.Linear(6, 4)
    objective = distillation(teacher, 2.0, 1.0)
    before = float(objective(student, (x,), None).detach())
    fit(student, Part("train", Arrays(x, None)), objective, Train(epochs=30, lr=0.05, batch_size=16), seed=0)
    assert float(objective(student, (x,), None).detach()) < before / 10
    assert float(objective(teacher, (x,), None).detach()) == pytest.approx(0, abs=1e-6)


def test_training_is_repeatable_and_learns(digits_npz: Path) -> None:
    data = data_of(digits_npz)
    assert data.train is not None
    weights = []
    for _ in range(2):
        torch.manual_seed(1)
        module = digits_resnet(8)
        fit(module, data.train, supervised, Train(epochs=3, lr=3e-3), seed=5)
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(weights[0], weights[1])
    result = evaluate(module, data.evaluation)
    assert result is not None
    assert result[0] == "accuracy"
    assert result[1] > 60


def test_a_loss_that_explodes_fails_the_pass() -> None:
    part = Part("train", Arrays(torch.randn(32, 4) * 1e30, torch.randn(32, 1)))
    with pytest.raises(PassFailed, match="loss became"):
        fit(nn.Linear(4, 1), part, supervised, Train(epochs=3, lr=1.0), seed=0)


def test_recalibration_restores_the_statistics() -> None:
    x = torch.randn(256, 4) * 3 + 5
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    assert recalibrate_batch_norm(module, Part("train", Arrays(x, None)))
    assert torch.allclose(module[0].running_mean, x.mean(0), atol=0.2)  # type: ignore[arg-type]
    assert torch.allclose(module[0].running_var, x.var(0), rtol=0.1)  # type: ignore[arg-type]
    assert not module.training
    assert not recalibrate_batch_norm(nn.Linear(2, 2), Part("train", Arrays(x, None)))


def test_schedule_rises_and_falls_to_zero() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(100)]
    assert factors[9] == 1.0
    assert factors[0] == pytest.approx(0.1)
    assert factors == [*sorted(factors[:10]), *sorted(factors[10:], reverse=True)]
    assert factors[-1] < 1e-3


def test_scores() -> None:
    assert score(torch.eye(4), torch.tensor([0, 1, 2, 0])) == ("accuracy", 75.0)
    assert score(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 2.0, 3.0])) == ("r2", 100.0)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros(3)}, "no array 'x'"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "3 and 4 samples"),
        ({"x": np.full((20, 2), np.nan)}, "NaN"),
        ({"x": np.array(["a", "b"])}, "not numeric"),
        ({"x": np.zeros((0, 2))}, "no samples"),
    ],
)
def test_bad_data_files(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_data(str(tmp_path / "d.npz"))


def test_more_bad_data(tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_text("text")
    np.savez(tmp_path / "p.npz", x=np.array([{"a": 1}], dtype=object))
    for name in ("t.npz", "p.npz", "absent.npz", "no.such:factory", "json:loads"):
        with pytest.raises((DataError, Exception)) as error:
            load_data(name if ":" in name else str(tmp_path / name))
        assert getattr(error.value, "exit_code", None) == 2, name
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load_data(str(tmp_path / "folder"))
    part = Part("train", Arrays(torch.zeros(4, 2), torch.tensor([0, 1, 2, 10])))
    with pytest.raises(DataError, match="0 to 10, but the model has 10 outputs"):
        check_labels(part, torch.zeros(1, 10))


def test_image_folders(tmp_path: Path) -> None:
    from PIL import Image

    from mlopt.artifact import TensorSpec

    for label, shade in (("black", 0), ("white", 255)):
        (tmp_path / label).mkdir()
        for i in range(6):
            Image.new("RGB", (10, 12), (shade,) * 3).save(tmp_path / label / f"{i}.png")
    data = load_data(str(tmp_path), (TensorSpec("x", ("batch", 3, 8, 8)),))
    assert data.train is not None
    inputs, target = data.train.take(100)
    assert inputs[0].shape[1:] == (3, 8, 8)
    assert target is not None
    assert torch.equal(inputs[0].amax((1, 2, 3)).long(), target)
    with pytest.raises(DataError) as error:
        load_data(str(tmp_path))
    assert "--input" in error.value.hint


class Counted(Dataset[Any]):
    """Counts how often each sample is read."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        self.reads[index] += 1
        return self.x[index], self.y[index]


class Stream(IterableDataset[Any]):
    """Samples in an order of their own, without a length."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(self.x, self.y, strict=True))


def normed(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def rates_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The (step, total) that the schedule is asked for."""
    asked: list[tuple[int, int]] = []

    def noted(step: int, total: int, warmup: float) -> float:
        asked.append((step, total))
        return schedule(step, total, warmup)

    monkeypatch.setattr("mlopt.training.loop.schedule", noted)
    return asked


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_epoch_reads_every_sample_once(wrapped: bool) -> None:
    source = Counted(torch.randn(70, 4), torch.arange(70) % 3)
    part = Part("train", DataLoader(source, batch_size=16, shuffle=True) if wrapped else source)
    done = fit(normed(), part, supervised, Train(epochs=1, batch_size=16), seed=0)
    assert done.steps == 5
    assert source.reads == Counter(range(70))


def test_training_stops_reading_at_its_last_step() -> None:
    source = Counted(torch.randn(64, 4), torch.arange(64) % 3)
    done = fit(
        normed(), Part("train", source), supervised, Train(epochs=9, batch_size=16, max_steps=5), seed=0
    )
    assert (done.steps, len(done.losses)) == (5, 2)
    assert sum(source.reads.values()) == 64 + 16


@pytest.mark.parametrize("kind", ["arrays", "loader", "drop_last", "batches", "stream", "sized", "single"])
def test_a_dropped_batch_is_not_in_the_schedule(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """33 samples in batches of 16: batch normalisation can do nothing with the last
    one."""
    x, y = torch.randn(33, 4), torch.arange(33) % 3
    batches = [((x[i : i + 16],), y[i : i + 16]) for i in (0, 16, 32)]

    class Sized:
        """An iterable whose length counts the batch that is dropped."""

        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[Any]:
            return iter(batches)

    source: Any = {
        "arrays": Arrays(x, y),
        "loader": DataLoader(Counted(x, y), batch_size=16),
        "drop_last": DataLoader(Counted(x, y), batch_size=16, drop_last=True),
        "batches": batches,
        "stream": Stream(x, y),
        "sized": Sized(),
        "single": DataLoader(Counted(x, y), batch_sampler=[[*range(16)], [*range(16, 32)], [32]]),
    }[kind]
    asked = rates_of(monkeypatch)
    done = fit(normed(), Part("train", source), supervised, Train(epochs=2, batch_size=16), seed=0)
    assert done.steps == 4
    assert list(dict.fromkeys(asked)) == [(step, 4) for step in range(4)]  # each group of weights asks


def test_without_normalisation_a_length_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch of one is used, and an iterable that has a length is not read to
    be counted."""
    read: list[int] = []

    class Sized:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[Any]:
            for size in (16, 16, 1):
                read.append(size)
                yield (torch.randn(size, 4),), torch.zeros(size, dtype=torch.long)

    asked = rates_of(monkeypatch)
    assert fit(nn.Linear(4, 3), Part("train", Sized()), supervised, Train(epochs=1), seed=0).steps == 3
    assert read == [16, 16, 1]
    assert asked[-1] == (2, 3)


def test_labels_are_refused_where_they_are_read() -> None:
    """Known targets before anything runs; others as their batch is read, by name and
    not by an index error."""
    x, y = torch.randn(40, 4), torch.arange(40) % 5
    outputs = torch.zeros(1, 3)
    with pytest.raises(DataError, match="the train labels run from 0 to 4, but the model has 3 outputs"):
        check_labels(Part("train", Arrays(x, y)), outputs)
    unread = Counted(x, y)
    check_labels(Part("train", unread), outputs)
    assert not unread.reads
    for objective in (supervised, distillation(normed(), 2.0, 0.5)):
        with pytest.raises(DataError, match="the train labels run from 0 to 4, but the model has 3 outputs"):
            fit(normed(), Part("train", unread), objective, Train(epochs=1, batch_size=40), seed=0)
    check_labels(Part("train", Arrays(x, None)), outputs)
    check_labels(Part("train", Arrays(x, torch.randn(40))), outputs)


def test_labels_that_do_not_fit_are_a_data_error_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    bundle.write(tmp_path / "b", *adopt(normed()).trunk())
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).standard_normal((64, 4)), y=np.arange(64) % 7)
    with pytest.raises(DataError, match="labels run from"):
        train_in_processes(job_for(tmp_path, tmp_path / "d.npz", seed=0), 2, lambda line: None)


def test_a_run_refuses_evaluation_labels_that_its_data_does_not_tell_before(tmp_path: Path) -> None:
    """They are known once the evaluation samples are read, which is before the first
    pass."""
    good, bad = (
        Counted(torch.randn(40, 3, 8, 8), torch.arange(40) % 10),
        Counted(torch.randn(40, 3, 8, 8), torch.arange(40) % 11),
    )
    with pytest.raises(
        DataError, match="the evaluation labels run from 0 to 10, but the model has 10 outputs"
    ):
        mlopt.compress(
            plain_cnn(),
            torch.randn(2, 3, 8, 8),
            out=tmp_path / "r",
            finetune=1,
            data=mlopt.Data(train=good, evaluation=bad),
        )
    assert not (tmp_path / "r" / "run.json").exists()
