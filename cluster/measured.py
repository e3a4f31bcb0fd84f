"""Statistics of latencies: of which requests, and which."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cluster.workload import Workload
from node.events import Ints
from node.units import PS_PER_S

Floats = npt.NDArray[np.float64]


def measured(workload: Workload, columns: Mapping[str, Ints], warmup: int) -> slice:
    """The rows of ``columns`` whose latencies count: all but those of the first ``warmup`` requests to arrive."""
    first = int(workload.requests.id[warmup]) if warmup else 0
    return slice(int(np.searchsorted(columns["request"], first)), None)


def spread(values: Ints | Floats, total: float) -> dict[str, float] | None:
    """Mean and percentiles in seconds of times in ps that add up to ``total``; None where there are none."""
    if not len(values):
        return None
    ordered = np.sort(values)
    ranks = {f"p{p}": ordered[-(-p * len(ordered) // 100) - 1] for p in (50, 90, 99)}
    return {"mean": total / len(values) / PS_PER_S} | {k: float(v) / PS_PER_S for k, v in ranks.items()}
