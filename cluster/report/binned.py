"""The times of a million requests as a few hundred numbers: distributions, and where time went over the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.residency import PS_PER_US, Residents
from cluster.scales import LOG_FROM
from node.events import Ints
from node.runtime.ledger import CHARGES
from node.units import PS_PER_S

Floats = npt.NDArray[np.float64]
BINS = 48
ALIKE = 1.05  # times: less apart, bounds of bins would be the same with the three digits that are written


@dataclass(frozen=True)
class Distribution:
    """``counts`` of times in bins between ``edges`` (s); ``zero``: those of no time at all, which are in no bin.

    Bins are equal on the axis that they are shown on: logarithmic (``log``) where times differ ``LOG_FROM`` times.
    Times that are ``ALIKE`` have one bin.
    """

    edges: Floats
    counts: Ints
    zero: int
    log: bool


def distribution(times: Ints | Floats) -> Distribution:
    """The distribution of times in ps."""
    some = times[times > 0].astype(np.float64)
    zero = len(times) - len(some)
    low, high = (float(some.min()), float(some.max())) if len(some) else (0.0, 0.0)
    if high <= ALIKE * low:
        return Distribution(np.array([low, high]) / PS_PER_S, np.array([len(some)]), zero, log=False)
    log = high > LOG_FROM * low
    start, end = (math.log(low), math.log(high)) if log else (low, high)
    places = np.log(some) if log else some
    bins = ((places - start) * (BINS / (end - start))).astype(np.int64)
    counts = np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
    edges = np.linspace(start, end, BINS + 1)
    return Distribution((np.exp(edges) if log else edges) / PS_PER_S, counts, zero, log)


def latencies(columns: Mapping[str, Ints], counted: slice) -> dict[str, Distribution]:
    """Distributions of ``counted`` rows by name: ``ttft_s``, ``tpot_s`` (of several tokens), ``e2e_s``, ``queue``."""
    e2e, ttft, tokens, queue = (columns[name][counted] for name in ("e2e", "ttft", "output_tokens", "queue"))
    several = tokens > 1
    tpot = (e2e - ttft)[several] / (tokens[several] - 1)
    return {
        name: distribution(times)
        for name, times in (("ttft_s", ttft), ("tpot_s", tpot), ("e2e_s", e2e), ("queue", queue))
        if len(times)
    }


def spent_over_time(columns: Mapping[str, Ints], residents: Residents) -> tuple[Ints, Floats]:
    """Of the requests that ended in each bin of time: how many, and their mean time by charge (s), 0 where none did."""
    bins = (columns["arrival"] + columns["e2e"]) // (residents.width_us * PS_PER_US)
    count = len(residents.edges) - 1
    ended = np.bincount(bins, minlength=count)
    sums = np.array([np.bincount(bins, weights=columns[charge], minlength=count) for charge in CHARGES])
    return ended, sums / np.maximum(ended, 1) / PS_PER_S
