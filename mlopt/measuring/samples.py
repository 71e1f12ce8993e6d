"""Every timed call on disk, as it comes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from mlopt.errors import UsageError
from mlopt.measuring.generation import Generation
from mlopt.records.edge import Json, to_json
from mlopt.system.files import explain_os_error

FILE = "samples.jsonl"


def forget_samples(directory: Path) -> None:
    """Remove what an earlier run left: its samples are not this one's."""
    try:
        (directory / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, directory) from error


class SampleFile:
    """Every call that is timed, one line a generation and workload: {"artifact",
    "shape" (the number of the workload), "blocks": {"0": nanoseconds of each block,
    "1": ...}, "info" (what each process says of itself), "load"}.

    A line is whole or not there: when the disk is full, what was finished stays, and
    `UsageError` says where.
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

    def __call__(self, generations: list[Generation]) -> None:
        lines = [json.dumps(self._line(number, made)) for number, made in enumerate(generations)]
        end = self._file.tell()
        try:
            self._file.write(("\n".join(lines) + "\n").encode())
            self._file.flush()
        except OSError as error:
            os.truncate(self._path, end)
            raise UsageError(
                f"{explain_os_error(error, self._path.parent).message}; the samples of finished processes are"
                f" in {self._path}",
                "free some space and run the gate again, or leave out -o",
            ) from error

    def _line(self, workload: int, made: Generation) -> Json:
        blocks: Json = {
            str(i): [np.round(block * 1e9).astype(int).tolist() for block in many]
            for i, many in made.blocks.items()
        }
        info: Json = {str(i): to_json(report) for i, report in made.reports.items()}
        load = to_json(made.load) | ({} if made.gpu is None else {"gpu": to_json(made.gpu)})
        return {"artifact": self._artifact, "shape": workload, "blocks": blocks, "info": info, "load": load}
