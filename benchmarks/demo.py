"""The demo with three seeds: accuracy of every artifact against the dense model, and
the share of the run that is mlopt's own work."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import write
from mlopt.records import run as records
from mlopt.records.edge import to_json

SEEDS = (0, 1, 2)


def main() -> None:
    """Run the demo as `make demo` does, in fresh directories."""
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as place:
            subprocess.run(
                [sys.executable, "-m", "recipes.demo", "-o", place, "--seed", str(seed)], check=True
            )
            run = to_json(records.read(Path(place) / "run"))
        dense = run["accuracy"]["baseline"]
        metrics = {"eager compressed": run["accuracy"]["after"]["distill"]} | {
            artifact["name"]: artifact["parity"]["metric"]
            for artifact in run["artifacts"]
            if artifact["parity"]
        }
        rows.append(
            {
                "seed": seed,
                "dense": dense,
                "drop": {name: dense - value for name, value in metrics.items()},
                "seconds": run["seconds"],
            }
        )
    names = rows[0]["drop"]
    write(
        "demo",
        {
            "command": "python -m benchmarks.demo",
            "runs": rows,
            "mean_drop_points": {name: statistics.mean(row["drop"][name] for row in rows) for name in names},
            "own_share": [row["seconds"]["mlopt"] / row["seconds"]["total"] for row in rows],
            "limits": {"drop_points": 1.0, "own_share": 0.10},
        },
    )


if __name__ == "__main__":
    main()
