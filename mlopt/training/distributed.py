"""DistributedDataParallel in child processes of our own: gloo on the CPU, NCCL on CUDA.

The parent writes a job file and starts `python -m mlopt.training.distributed JOB RANK`
N times. The processes find each other through a file, not a port, which another program
could take first. If one dies the others are ended, and the end of its log is in the
error. Children die with the parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from mlopt.data.sets import load_data
from mlopt.errors import DataError, MloptError, PassFailed, last_lines
from mlopt.model import bundle
from mlopt.model.tensors import canonical
from mlopt.model.trust import Trust
from mlopt.recipe.configs import Distill
from mlopt.records.edge import from_json, read_json, to_json, write_json
from mlopt.system.processes import die_with_parent, python_path
from mlopt.training.loop import Fit, Progress, Trainer, World, fit
from mlopt.training.objectives import Objective, distillation, supervised

TIMEOUT_S = 600.0
T = TypeVar("T")


@dataclass(frozen=True)
class TrainJob:
    """What each process trains. `bundle`: the module; `teacher`: the bundle to distill
    from; `data`: as `--data`, since every process loads it itself; `threads`: of each
    process; `out`: where rank 0 writes the trained weights."""

    bundle: Path
    teacher: Path
    trust: Trust
    config: Trainer
    data: str
    seed: int
    device: str
    threads: int
    out: Path


@dataclass(frozen=True)
class _Group:
    """A job with what its processes need to find each other. `rendezvous`: the file
    they meet at; `report`: where rank 0 says what was done."""

    job: TrainJob
    size: int
    rendezvous: Path
    report: Path


@dataclass(frozen=True)
class _Report:
    """What rank 0 did, and its lines of progress."""

    fit: Fit
    lines: tuple[str, ...]


def train_in_processes(job: TrainJob, nproc: int, progress: Progress) -> Fit:
    """Run a training job on `nproc` processes; the trained weights are in `job.out`
    afterwards.

    Raises `PassFailed` with the last words of the process that failed, `DataError` when
    what it said is that the data does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="mlopt-ddp-") as scratch:
        place = Path(scratch)
        report = place / "report.json"
        write_json(place / "job.json", to_json(_Group(job, nproc, place / "store", report)))
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(),
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
            "OMP_NUM_THREADS": str(job.threads),
        }
        logs = [(place / f"rank{rank}.log").open("w+") for rank in range(nproc)]
        command = [sys.executable, "-m", "mlopt.training.distributed", str(place / "job.json")]
        children = [
            subprocess.Popen([*command, str(rank)], stdout=log, stderr=log, env=environment)
            for rank, log in enumerate(logs)
        ]
        try:
            _wait(children, logs)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()
            for log in logs:
                log.close()
        done = _read(_Report, report)
        for line in done.lines:
            progress(line)
        return done.fit


def _read(kind: type[T], path: Path) -> T:
    what = "a file of mlopt's own processes"
    return from_json(kind, read_json(path, what, ""), str(path), what, "")


def _wait(children: Sequence[subprocess.Popen[bytes]], logs: Sequence[IO[str]]) -> None:
    """Until all are done; the first failure raises with the end of that process's
    log."""
    while True:
        codes = [child.poll() for child in children]
        # The process that refused its data comes first: the others only lost a partner.
        failed = sorted((code != DataError.exit_code, rank, code) for rank, code in enumerate(codes) if code)
        for _, rank, code in failed:
            logs[rank].seek(0)
            tail = last_lines(logs[rank].read())
            kind = DataError if code == DataError.exit_code else PassFailed
            words = f"training process {rank} of {len(children)} ended with {code}: {tail}"
            raise kind(words, "try --nproc 1")
        if all(code == 0 for code in codes):
            return
        time.sleep(0.05)


def _work(path: Path, rank: int) -> None:
    """One process: rebuild the bundle, wrap it, train, and on rank 0 write the
    weights."""
    die_with_parent()
    group = _read(_Group, path)
    job = group.job
    from mlopt.training.sync_norm import synchronised  # brings torch.distributed.nn along

    device = f"cuda:{rank}" if job.device == "cuda" else "cpu"
    torch.set_num_threads(job.threads)
    dist.init_process_group(
        "nccl" if device != "cpu" else "gloo",
        init_method=f"file://{group.rendezvous}",
        rank=rank,
        world_size=group.size,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    module, head = bundle.read(job.bundle, job.trust)
    objective: Objective = supervised
    if isinstance(job.config, Distill):
        teacher, _ = bundle.read(job.teacher, job.trust)
        objective = distillation(teacher.to(device), job.config.temperature, job.config.alpha)
    data = load_data(job.data, head.inputs)
    if data.train is None:
        raise DataError("there is no training data")
    model = synchronised(module, device).to(device)
    has_buffers = any(True for _ in model.buffers())
    wrapped = DistributedDataParallel(
        model, device_ids=[rank] if device != "cpu" else None, broadcast_buffers=has_buffers
    )
    lines: list[str] = []
    world = World(rank, group.size, device)
    done = fit(wrapped, data.train, objective, job.config, job.seed, world, lines.append, head.sparse)
    if rank == 0:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in canonical(model).items()}, job.out
        )
        write_json(group.report, to_json(_Report(done, tuple(lines))))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    try:
        _work(Path(sys.argv[1]), int(sys.argv[2]))
    except MloptError as error:
        print(error.message, error.hint, file=sys.stderr, flush=True)
        os._exit(error.exit_code)  # a usual exit would abort in the threads of the process group
