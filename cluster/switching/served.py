"""Requests of a run by what they found: hot, warm or cold; and what an operator would take for the switching time.

Of a request that its expert served:

- hot: it waited for no copy (its ``switch`` time is 0): the expert was in HBM when its turn came;
- cold: it waited for a copy, and is of the first batch that the expert ever served in its group;
- warm: it waited for a copy, and the expert had served before: it had been in HBM, and was evicted.

So every request is exactly one of them. Whoever joins the batch of a request that has the expert copied waits too, and
is warm or cold here, where the hit rate of a run counts it as a hit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from node.events import Ints
from node.units import PS_PER_S

TEMPERATURES = ("hot", "warm", "cold")
Columns = Mapping[str, Ints]


def temperatures(columns: Columns) -> dict[str, npt.NDArray[np.bool_]]:
    """Of each completed request of a requests table, whether it is hot, warm or cold."""
    waited = columns["switch"] > 0
    first_token = columns["arrival"] + columns["ttft"]  # when the pass over its batch's prompts ended
    _, expert = np.unique(np.stack([columns["group"], columns["expert"]]), axis=1, return_inverse=True)
    expert = expert.reshape(-1)
    earliest = np.full(len(expert), np.iinfo(np.int64).max)
    np.minimum.at(earliest, expert, first_token)
    first = first_token == earliest[expert]
    return {"hot": ~waited, "warm": waited & ~first, "cold": waited & first}


def spread(values_ps: Ints, percents: tuple[int, ...] = (50,)) -> dict[str, float] | None:
    """Least, greatest and percentiles by nearest rank, in seconds; None where there is no value."""
    if not len(values_ps):
        return None
    ordered = np.sort(values_ps)
    ranks = {f"p{p}": ordered[-(-p * len(ordered) // 100) - 1] for p in percents}
    found = {"min": ordered[0], **ranks, "max": ordered[-1]}
    return {name: float(value) / PS_PER_S for name, value in found.items()}


@dataclass(frozen=True)
class Estimated:
    """TTFT of requests in full batches, in seconds; the operator's estimate is the difference."""

    smallest_s: float
    largest_s: float
    batches: int

    @property
    def switching_s(self) -> float:
        """Largest less smallest TTFT."""
        return self.largest_s - self.smallest_s


def estimated(columns: Columns, batch: int) -> Estimated | None:
    """Over the batches of ``batch`` requests whose prompts were processed together; None where there is none."""
    ends = columns["arrival"] + columns["ttft"]
    keys = np.stack([columns["group"], columns["expert"], ends])
    _, which, sizes = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    full = sizes[which.reshape(-1)] == batch
    if not full.any():
        return None
    ttft = columns["ttft"][full]
    return Estimated(float(ttft.min()) / PS_PER_S, float(ttft.max()) / PS_PER_S, int((sizes == batch).sum()))
