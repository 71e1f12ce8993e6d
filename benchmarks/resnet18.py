"""ResNet-18 at 224x224, batch 1, one thread: prune half of the MACs, quantize to INT8,
against eager fp32. Weights are random.

By hand, with Torch-Pruning 1.6.1 and onnxruntime 1.31, the same gave 10.2x at 0.46 of
the MACs; the floor that mlopt must hold is 9x.
"""

from __future__ import annotations

import tempfile

from benchmarks.common import run_mlopt, write


def main() -> None:
    """Run and keep the rows."""
    with tempfile.TemporaryDirectory() as place:
        arguments = [
            "compress",
            "recipes.networks:resnet18",
            "--prune",
            "0.5",
            "--quantize",
            "int8",
            "--input",
            "batch,3,224,224",
        ]
        run, seconds, _ = run_mlopt([*arguments, "--budget", "60", "-o", f"{place}/run"])
    rows = {row["artifact"]: row for row in run["bench"]}
    compression = run["compression"]["macs"]
    write(
        "resnet18",
        {
            "command": "mlopt " + " ".join(arguments),
            "macs_left": compression["after"] / compression["before"],
            "speedup": {name: row["speedup"] for name, row in rows.items() if row["speedup"]},
            "p50_s": {name: row["p50_s"] for name, row in rows.items()},
            "int8_operators": next(
                e["metrics"]["summary"] for e in run["passes"] if e["name"] == "model.int8-cpu.onnx"
            ),
            "floor": 9.0,
            "run_s": seconds,
        },
    )


if __name__ == "__main__":
    main()
