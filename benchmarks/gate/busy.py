"""A second process that is busy as a neighbour on a shared machine is: bursts of
arithmetic on one core or two, copies, and pauses, at random.

`python -m benchmarks.gate.busy SECONDS`
"""

from __future__ import annotations

import os
import random
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np
from threadpoolctl import threadpool_limits


def main() -> None:
    """Until the time is over; about a tenth of it at rest."""
    draw = random.Random(os.getpid())
    a = np.random.default_rng(0).standard_normal((700, 700)).astype(np.float32)
    source = np.ones(16 << 20, np.float32)
    target = np.empty_like(source)
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        until = time.monotonic() + draw.uniform(0.05, 1.5)
        kind = draw.choices(("one core", "two cores", "copy", "rest"), (4, 2, 3, 1))[0]
        with threadpool_limits(2 if kind == "two cores" else 1):
            while time.monotonic() < until:
                if kind == "copy":
                    np.copyto(target, source)
                elif kind == "rest":
                    time.sleep(0.02)
                else:
                    a @ a


if __name__ == "__main__":
    main()
