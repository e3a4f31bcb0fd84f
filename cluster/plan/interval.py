"""How well a share is known that was counted in several runs.

Requests of one run wait for one another, so they are no independent trials; runs from different seeds are. The share is
the ratio of sums, its variance is taken between runs, and Wilson's interval is made for as many independent requests as
would have that variance, with Student's t for as many degrees of freedom as there are runs but one: the modified Wilson
interval for shares of clustered samples (Dean and Pagano, J. Survey Statistics and Methodology 3, 2015, 484) with the
effective sample size of Korn and Graubard (Survey Methodology 24, 1998, 193). In the middle it is Student's interval of
the runs' shares. At 0 and 1, where that one has no width, it has that of as many independent requests, and never less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
# 0.975 quantile of Student's t, 1 to 30 degrees of freedom: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
LEAST_RUNS, MOST_RUNS = 2, len(T_975) + 1


@dataclass(frozen=True)
class Share:
    """A share with the ends of its interval, of requests ``counted`` in so many ``runs``."""

    share: float
    low: float
    high: float
    counted: int
    runs: int


def share_of(kept: Sequence[int], counted: Sequence[int]) -> Share:
    """The share of ``kept`` requests of those ``counted``, each a number a run, of 2 to 31 runs with any at all."""
    runs, requests = len(counted), sum(counted)
    share = sum(kept) / requests
    independent = share * (1 - share) / requests
    deviations = sum((one - share * of) ** 2 for one, of in zip(kept, counted, strict=True))
    between = runs / (runs - 1) * deviations / requests**2
    effect = max(1.0, between / independent) if independent else 1.0
    return Share(share, *wilson(share, requests / effect, T_975[runs - 2]), requests, runs)


def wilson(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many independent trials (J. Am. Stat. Assoc. 22, 1927, 209)."""
    square = quantile**2 / trials
    middle, half = share + square / 2, math.sqrt(square * share * (1 - share) + square**2 / 4)
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def fewest_requests(share: float, runs: int) -> int:
    """How many requests, over all runs, it takes to show a share of at least ``share`` where everybody is kept to."""
    return math.ceil(share / (1 - share) * T_975[runs - 2] ** 2)
