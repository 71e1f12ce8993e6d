"""Real data that needs no download: scikit-learn's handwritten digits, and the help
texts of Python itself."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from mlopt import Data


def digits_arrays(size: int = 32) -> dict[str, np.ndarray]:
    """1,797 digits as float32 (n, 1, size, size) in [0, 1], enlarged by repetition;
    every fifth is held out. Keys as in a .npz file."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images = (x.reshape(-1, 1, 8, 8) / 16).astype(np.float32).repeat(size // 8, 2).repeat(size // 8, 3)
    order = np.random.default_rng(0).permutation(len(y))
    images, y = images[order], y[order].astype(np.int64)
    held = len(y) // 5
    return {"x": images[held:], "y": y[held:], "x_val": images[:held], "y_val": y[:held]}


def digits() -> Data:
    """The digits as a data factory."""
    arrays = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in digits_arrays().items()}
    train = TensorDataset(arrays["x"], arrays["y"])
    return Data(train=train, calibration=train, evaluation=TensorDataset(arrays["x_val"], arrays["y_val"]))


class Windows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Windows of a byte string: 64 bytes, and the same shifted by one."""

    def __init__(self, text: bytes, length: int = 64) -> None:
        self.data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        self.length = length

    def __len__(self) -> int:
        return (len(self.data) - 1) // self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index >= len(self):
            raise IndexError(index)
        at = index * self.length
        return self.data[at : at + self.length], self.data[at + 1 : at + 1 + self.length]


def help_texts() -> Data:
    """The language reference that every Python installation carries
    (`pydoc_data.topics`, 700 kB of English)."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[key] for key in sorted(topics)).encode()
    cut = len(text) * 9 // 10
    train = Windows(text[:cut])
    return Data(train=train, calibration=train, evaluation=Windows(text[cut:]))
