"""Is the interval of a share the published one, as wide as runs differ, and right as often as it says?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from cluster.plan.interval import T_975, fewest_requests, share_of, wilson

NORMAL = 1.959964


@pytest.mark.parametrize(
    ("kept", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(kept: int, of: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), 857, table I, method 3."""
    assert wilson(kept / of, of, NORMAL) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("freedom", range(1, 31))
def test_quantiles_leave_two_and_a_half_percent_above(freedom: int) -> None:
    """By the sums for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle, odd = math.atan(T_975[freedom - 1] / math.sqrt(freedom)), freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= math.cos(angle) ** 2 * (2 * k - 1 + odd) / (2 * k + odd)
    inside = math.sin(angle) * total
    assert (2 / math.pi * (angle + inside) if odd else inside) == pytest.approx(0.95, abs=1e-4)


def test_where_runs_differ_and_are_long_it_is_students_interval_of_their_shares() -> None:
    """Shares 0.4, 0.5 and 0.6: 0.5 +- 4.303 x 0.1 / sqrt 3, before the bend that keeps it within 0 and 1."""
    found = share_of([400_000, 500_000, 600_000], [1_000_000] * 3)
    half = 4.303 * 0.1 / math.sqrt(3)
    bent = half / math.sqrt(1 + 4 * half**2)  # Wilson's interval around 1/2, of w = 4 half^2
    assert (found.share, found.low, found.high) == pytest.approx((0.5, 0.5 - bent, 0.5 + bent), rel=1e-4)
    close = share_of([499_000, 500_000, 501_000], [1_000_000] * 3)
    assert close.high - close.share == pytest.approx(4.303 * 0.001 / math.sqrt(3), rel=1e-3)


def test_where_nobody_is_missed_it_still_has_a_width_that_more_requests_take_away() -> None:
    widths = [1 - share_of([count] * 5, [count] * 5).low for count in (100, 1000, 10_000)]
    assert widths == pytest.approx([2.776**2 / (5 * count + 2.776**2) for count in (100, 1000, 10_000)])
    assert share_of([0] * 5, [100] * 5).high == pytest.approx(widths[0])


def test_runs_that_agree_too_well_count_as_independent_requests_and_no_better() -> None:
    found = share_of([90, 90, 90], [100, 100, 100])
    assert (found.low, found.high) == wilson(0.9, 300, 4.303)


def test_long_runs_count_for_more() -> None:
    found = share_of([50, 900], [100, 900])
    assert found.share == 0.95 and found.counted == 1000 and found.runs == 2
    swapped = share_of([900, 50], [900, 100])
    assert swapped == found


@pytest.mark.parametrize(("share", "runs"), [(0.9, 2), (0.99, 5), (0.999, 3), (0.5, 31)])
def test_so_many_requests_can_show_it_and_one_less_cannot(share: float, runs: int) -> None:
    needed = fewest_requests(share, runs)
    quantile = T_975[runs - 2]
    assert wilson(1.0, needed, quantile)[0] >= share - 1e-12 and wilson(1.0, needed - 1, quantile)[0] < share


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize(("mean", "together"), [(0.99, 3000.0), (0.99, 300.0), (0.95, 100.0)])
def test_the_lower_end_is_seldom_above_the_truth(mean: float, together: float, runs: int) -> None:
    """Shares of runs from a beta distribution of that mean, the narrower the greater ``together``; 2,000 requests each.

    It ought to be above in 2.5 % of all cases. Shares near 1 are skewed, so that it is in a little more; but in less
    than with Student's interval of the shares, or where all requests count as independent.
    """
    rng = np.random.default_rng(0)
    times, counted, above, students, independent = 2000, 2000, 0, 0, 0
    for _ in range(times):
        kept = rng.binomial(counted, rng.beta(mean * together, (1 - mean) * together, runs))
        shares = kept / counted
        above += share_of(kept.tolist(), [counted] * runs).low > mean
        students += shares.mean() - T_975[runs - 2] * shares.std(ddof=1) / math.sqrt(runs) > mean
        independent += wilson(shares.mean(), runs * counted, NORMAL)[0] > mean
    assert above / times < 0.04 and above < min(students, independent)
