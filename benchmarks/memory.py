"""Peak memory of `mlopt compress` on a vision transformer of 346 MB (86.6M parameters):
limit 4x its bytes + 1.5 GiB."""

from __future__ import annotations

import tempfile

from benchmarks.common import run_mlopt, write


def main() -> None:
    """Run and keep the peak of the whole process tree."""
    with tempfile.TemporaryDirectory() as place:
        arguments = ["compress", "recipes.networks:vit_base", "--prune", "0.5", "--input", "batch,3,224,224"]
        run, seconds, peak = run_mlopt([*arguments, "--budget", "1", "-o", f"{place}/run"])
    dense = run["compression"]["bytes"]["before"]
    write(
        "memory",
        {
            "command": "mlopt " + " ".join(arguments),
            "dense_bytes": dense,
            "peak_tree_pss_bytes": peak,
            "limit_bytes": 4 * dense + 1.5 * 2**30,
            "macs_left": run["compression"]["macs"]["after"] / run["compression"]["macs"]["before"],
            "passes": {entry["name"]: entry["seconds"] for entry in run["passes"]},
            "run_s": seconds,
        },
    )


if __name__ == "__main__":
    main()
