"""The parts of a data set (training, calibration, evaluation), and how batches come out
of them.

A batch is `(inputs, target)`: `inputs` a tuple of tensors with the batch first,
`target` a tensor or None.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mlopt.errors import DataError

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor | None]


class WithTargets(Dataset[Any]):
    """A `Dataset` whose targets are known without reading an input."""

    @abstractmethod
    def known_targets(self) -> torch.Tensor | None:
        """The targets of all samples, in order; None when the data has none."""

    @abstractmethod
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Data:
    """What a data factory returns: each part a torch `Dataset`, a `DataLoader`, or an
    iterable of `(inputs, target)` batches."""

    train: Any = None
    calibration: Any = None
    evaluation: Any = None


@dataclass(frozen=True)
class Part:
    """One part of a data set. `name` is for messages. Raises `DataError` for what can
    be read only once."""

    name: str
    source: Any

    def __post_init__(self) -> None:
        if isinstance(self.source, Iterator):
            raise DataError(
                f"the {self.name} data can be read only once",
                "give a list, a Dataset or a DataLoader instead of a generator",
            )

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        """Batches of `size` (a DataLoader's or iterable's own size stays), shuffled
        when a seed is given.

        What comes from an `IterableDataset`, a DataLoader or an iterable comes in its
        own order.
        """
        source: Iterable[Any] = self.source
        if isinstance(self.source, IterableDataset):
            source = DataLoader(self.source, batch_size=size)
        elif isinstance(self.source, Dataset):
            generator = torch.Generator().manual_seed(seed or 0)
            source = DataLoader(self.source, batch_size=size, shuffle=seed is not None, generator=generator)
        for item in source:
            yield self._batch(item)

    def _batch(self, item: Any) -> Batch:
        inputs, target = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
        inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        if not all(isinstance(tensor, torch.Tensor) for tensor in inputs):
            raise DataError(
                f"the {self.name} data gives {type(inputs[0]).__name__}, not tensors",
                "yield (inputs, target) with torch tensors",
            )
        return inputs, target

    def batch_sizes(self, size: int) -> list[int] | None:
        """How many samples each batch of `batches(size)` holds, in order, where that is
        known without reading one."""
        source = self.source
        try:
            if isinstance(source, DataLoader):
                if source.batch_size is None or isinstance(source.dataset, IterableDataset):
                    return None
                count = len(source.sampler)  # type: ignore[arg-type]
                return _sizes(count, source.batch_size, source.drop_last)
            if isinstance(source, Dataset):
                return _sizes(len(source), size)  # type: ignore[arg-type]
        except TypeError:  # it has no length
            return None
        if isinstance(source, (list, tuple)):  # the batches are in memory
            return [len(self._batch(item)[0][0]) for item in source]
        return None

    def batch_count(self, size: int) -> int | None:
        """How many batches `batches(size)` gives, where that is known without reading
        one."""
        sizes = self.batch_sizes(size)
        if sizes is not None:
            return len(sizes)
        try:
            return len(self.source) if isinstance(self.source, Sized) else None
        except TypeError:  # a DataLoader over something without a length
            return None

    def known_targets(self) -> torch.Tensor | None:
        """The targets of all samples, in order, where they are known without reading an
        input."""
        return self.source.known_targets() if isinstance(self.source, WithTargets) else None

    def take(self, count: int) -> Batch:
        """The first `count` samples as one batch, fewer where there are fewer. Raises
        `DataError` when there is none."""
        read: list[Batch] = []
        count_read = 0
        for batch in self.batches(min(count, 256)):
            read.append(batch)
            count_read += len(batch[0][0])
            if count_read >= count:
                break
        if not count_read:
            raise DataError(f"the {self.name} data is empty", "give at least one batch")
        inputs = tuple(torch.cat(parts)[:count] for parts in zip(*(batch[0] for batch in read), strict=True))
        targets = [batch[1] for batch in read if batch[1] is not None]
        return inputs, torch.cat(targets)[:count] if len(targets) == len(read) else None


@dataclass(frozen=True)
class DataSet:
    """All parts that were given, and a fingerprint of their content."""

    fingerprint: str
    train: Part | None
    calibration: Part | None
    evaluation: Part | None

    def any_part(self) -> Part | None:
        """What examples are taken from: calibration data, else evaluation data, else
        training data."""
        return self.calibration or self.evaluation or self.train


NO_DATA = DataSet("none", None, None, None)


def _sizes(samples: int, size: int, drop_last: bool = False) -> list[int]:
    """Batch sizes of `samples` in batches of `size`, the last one short or dropped."""
    whole, rest = divmod(samples, size)
    return [size] * whole + ([rest] if rest and not drop_last else [])
