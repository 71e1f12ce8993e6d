"""DistributedDataParallel in child processes of our own: gloo on the CPU, NCCL on CUDA.

The parent writes a job file and starts `python -m mlopt.training.distributed JOB RANK` N times. Processes meet through a file, not a port, so
nothing races for one. If one dies the others are ended, and its last words are in the error. Children die with the parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlopt.errors import MloptError, PassFailed
from mlopt.system.processes import die_with_parent, importable

TIMEOUT_S = 600.0


def train_in_processes(job: dict[str, Any], nproc: int, progress: Any) -> dict[str, Any]:
    """Run a training job on `nproc` processes; returns what rank 0 reports. Raises `PassFailed`.

    `job`: see `_work`. The trained weights are written to `job["out"]`.
    """
    with tempfile.TemporaryDirectory(prefix="mlopt-ddp-") as scratch:
        place = Path(scratch)
        (place / "job.json").write_text(json.dumps({**job, "world": nproc, "rendezvous": str(place / "store"), "report": str(place / "report.json")}))
        environment = {
            **os.environ,
            "PYTHONPATH": importable(),
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
            "OMP_NUM_THREADS": str(job["threads"]),
        }
        logs = [(place / f"rank{rank}.log").open("w+") for rank in range(nproc)]
        command = [sys.executable, "-m", "mlopt.training.distributed", str(place / "job.json")]
        children = [subprocess.Popen([*command, str(rank)], stdout=log, stderr=log, env=environment) for rank, log in enumerate(logs)]
        try:
            _wait(children, logs)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()
            for log in logs:
                log.close()
        report: dict[str, Any] = json.loads((place / "report.json").read_text())
        for line in report.pop("lines"):
            progress(line)
        return report


def _wait(children: list[subprocess.Popen[Any]], logs: list[Any]) -> None:
    """Until all are done; the first failure raises with the end of that process's log."""
    while True:
        codes = [child.poll() for child in children]
        for rank, code in enumerate(codes):
            if code not in (None, 0):
                logs[rank].seek(0)
                tail = logs[rank].read().strip().splitlines()[-3:]
                raise PassFailed(f"training process {rank} of {len(children)} ended with {code}: {' | '.join(tail)}", "try --nproc 1")
        if all(code == 0 for code in codes):
            return
        time.sleep(0.05)


def _work(path: Path, rank: int) -> None:
    """One process: rebuild the bundle, wrap it, train, and on rank 0 write the weights."""
    die_with_parent()
    job = json.loads(path.read_text())
    from datetime import timedelta

    import torch
    import torch.distributed as dist
    from safetensors.torch import save_file
    from torch.nn.parallel import DistributedDataParallel

    from mlopt.data.sets import load_data
    from mlopt.errors import DataError
    from mlopt.model import bundle
    from mlopt.model.tensors import canonical
    from mlopt.model.trust import Trust
    from mlopt.recipe.configs import Distill, Finetune, Train
    from mlopt.training.loop import Trainer, World, fit
    from mlopt.training.objectives import Objective, distillation, supervised
    from mlopt.training.sync_norm import synchronised

    device = f"cuda:{rank}" if job["device"] == "cuda" else "cpu"
    torch.set_num_threads(int(job["threads"]))
    dist.init_process_group(
        "nccl" if device != "cpu" else "gloo",
        init_method=f"file://{job['rendezvous']}",
        rank=rank,
        world_size=job["world"],
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    trust = Trust.from_json(job["trust"])
    module, head = bundle.read(Path(job["bundle"]), trust)
    kinds: dict[str, type[Trainer]] = {"train": Train, "finetune": Finetune, "distill": Distill}
    config = kinds[job["config"]["pass"]].model_validate(job["config"])
    objective: Objective = supervised
    if isinstance(config, Distill):
        teacher, _ = bundle.read(Path(job["teacher"]), trust)
        objective = distillation(teacher.to(device), config.temperature, config.alpha)
    data = load_data(job["data"], head.inputs)
    if data.train is None:
        raise DataError("there is no training data")
    model = synchronised(module, device).to(device)
    has_buffers = any(True for _ in model.buffers())
    wrapped = DistributedDataParallel(model, device_ids=[rank] if device != "cpu" else None, broadcast_buffers=has_buffers)
    lines: list[str] = []
    done = fit(wrapped, data.train, objective, config, job["seed"], device, World(rank, job["world"]), lines.append, head.sparse)
    if rank == 0:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in canonical(model).items()}, job["out"])
        Path(job["report"]).write_text(json.dumps({"steps": done.steps, "losses": done.losses, "seconds": done.seconds, "lines": lines}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    try:
        _work(Path(sys.argv[1]), int(sys.argv[2]))
    except MloptError as error:
        print(error.message, error.hint, file=sys.stderr)
        sys.exit(error.exit_code)
