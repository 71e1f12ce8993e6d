"""Every timed call on disk, as it comes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from mlopt.errors import UsageError
from mlopt.measuring.protocol import Epoch
from mlopt.system.files import explain_os_error

FILE = "samples.jsonl"


def forget_samples(directory: Path) -> None:
    """Remove what an earlier run left: its samples are not this one's."""
    try:
        (directory / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, directory) from error


class SampleFile:
    """Every call that is timed, one line an epoch: {"artifact", "shape", "blocks": {"0": nanoseconds of each block, "1": ...}, "info", "load"}.

    A line is whole or not there: when the disk is full, what was finished stays, and `UsageError` says where.
    """

    def __init__(self, directory: Path, artifact: str) -> None:
        self._path, self._artifact = directory / FILE, artifact

    def __enter__(self) -> SampleFile:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        except OSError as error:
            raise explain_os_error(error, self._path.parent) from error
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def __call__(self, epochs: list[Epoch]) -> None:
        lines = []
        for shape, epoch in enumerate(epochs):
            blocks = {str(i): [np.round(block * 1e9).astype(int).tolist() for block in many] for i, many in epoch.blocks.items()}
            info = {str(i): value for i, value in epoch.info.items()}
            lines.append(json.dumps({"artifact": self._artifact, "shape": shape, "blocks": blocks, "info": info, "load": epoch.load}))
        end = self._file.tell()
        try:
            self._file.write(("\n".join(lines) + "\n").encode())
            self._file.flush()
        except OSError as error:
            os.truncate(self._path, end)
            raise UsageError(
                f"{explain_os_error(error, self._path.parent).message}; the samples of the finished epochs are in {self._path}",
                "free some space and run the gate again, or leave out -o",
            ) from error
