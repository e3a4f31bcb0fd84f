"""Are the draws those of the named distribution, whole and reproducible, and is every other name refused?"""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.distributions import parse_arrivals, parse_lengths
from cluster.traces import LONGEST_SPAN_PS
from node.errors import InputError

KEY = "workload.input_tokens"
COUNT = 200_000


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


# Lengths


@pytest.mark.parametrize("text", [128, "128", " 128 "])
def test_a_number_is_a_fixed_length(text: int | str) -> None:
    assert parse_lengths(text, KEY).draw(3, rng()).tolist() == [128, 128, 128]


@pytest.mark.parametrize(("mean", "sigma"), [(1155, 1.1), (211, 0.9), (5000, 0.25)])
def test_a_lognormal_has_the_mean_and_the_sigma_it_names(mean: float, sigma: float) -> None:
    lengths = parse_lengths(f"lognormal(mean={mean}, sigma={sigma})", KEY).draw(COUNT, rng())
    assert lengths.dtype == np.int64
    # Standard error of the mean: mean x sqrt(exp(sigma^2) - 1) / sqrt(n); 4 of them, half a token of rounding.
    error = mean * math.sqrt(math.expm1(sigma**2) / COUNT)
    assert abs(lengths.mean() - mean) < 4 * error + 0.5
    assert np.log(lengths).std() == pytest.approx(sigma, rel=0.01)
    # The median of a lognormal is exp(mu), which lies below its mean by exp(sigma^2 / 2).
    assert np.median(lengths) == pytest.approx(mean * math.exp(-(sigma**2) / 2), rel=0.02)


def test_max_clips_a_lognormal_and_changes_nothing_below() -> None:
    free = parse_lengths("lognormal(mean=1000, sigma=1)", KEY).draw(COUNT, rng())
    clipped = parse_lengths("lognormal(mean=1000, sigma=1, max=4096)", KEY).draw(COUNT, rng())
    assert free.max() > 4096
    assert np.array_equal(clipped, np.minimum(free, 4096))


def test_a_length_is_never_below_one_token() -> None:
    lengths = parse_lengths("lognormal(mean=1, sigma=2)", KEY).draw(10_000, rng())
    assert lengths.min() == 1


def test_uniform_takes_both_its_ends_and_all_between_alike() -> None:
    lengths = parse_lengths("uniform(low=3, high=7)", KEY).draw(COUNT, rng())
    values, counts = np.unique(lengths, return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7]
    assert counts / COUNT == pytest.approx([0.2] * 5, abs=0.005)
    assert set(parse_lengths("uniform(low=5, high=5)", KEY).draw(9, rng()).tolist()) == {5}


@pytest.mark.parametrize(
    "value",
    [
        0,
        -3,
        True,
        12.5,
        "",
        "12.5",
        "nan",
        "inf",
        "-inf",
        "1e10",
        "1000000001",
        "normal(mean=3)",
        "lognormal",
        "lognormal()",
        "lognormal(mean=3)",
        "lognormal(sigma=3)",
        "lognormal(mean=3, sigma=1",
        "lognormal(3, 1)",
        "lognormal(mean=3, sigma=1, mean=3)",
        "lognormal(mean=3, sigma=1, minimum=3)",
        "lognormal(mean=3, sigma=1, max=2.5)",
        "lognormal(mean=3, sigma=1, max=0)",
        "lognormal(mean=0, sigma=1)",
        "lognormal(mean=-3, sigma=1)",
        "lognormal(mean=nan, sigma=1)",
        "lognormal(mean=inf, sigma=1)",
        "lognormal(mean=3, sigma=0)",
        "lognormal(mean=3, sigma=-1)",
        "lognormal(mean=3, sigma=nan)",
        "lognormal(mean=3, sigma=inf)",
        "lognormal(mean=3, sigma=1) and more",
        "lognormal\n(mean=x)",
        "uniform(low=0, high=3)",
        "uniform(low=5, high=3)",
        "uniform(low=1.5, high=3)",
        "uniform(low=1)",
        "poisson",
    ],
)
def test_any_other_length_is_refused_in_one_line(value: int | str) -> None:
    with pytest.raises(InputError) as caught:
        parse_lengths(value, KEY)
    message = str(caught.value)
    assert message.startswith(f"{KEY} = {value!r}: ")
    assert "; allowed: " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("lognormal(mean=3)", "sigma is missing"),
        ("lognormal(mean=3, sigma=1, mean=3)", "mean is given twice"),
        ("lognormal(mean=3, sigma=1, minimum=3)", "parameter 'minimum' is unknown"),
        ("lognormal(mean=3, sigma=nan)", "'nan' is not a number from"),
        ("uniform(low=5, high=3)", "low is above high"),
    ],
)
def test_the_message_names_what_is_wrong_in_the_brackets(value: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        parse_lengths(value, KEY)


# Arrivals


def gaps_s(text: str, rate: float, seed: int = 7) -> np.ndarray:
    arrivals = parse_arrivals(text, "workload.arrivals").draw(COUNT, rate, rng(seed))
    return np.diff(arrivals, prepend=0) / 1e12


@pytest.mark.parametrize(("text", "cv"), [("poisson", 1), ("gamma(cv=2)", 2), ("gamma(cv=0.5)", 0.5), ("fixed", 0)])
def test_gaps_have_the_rate_and_the_coefficient_of_variation(text: str, cv: float) -> None:
    gaps = gaps_s(text, 4)
    assert gaps.mean() == pytest.approx(0.25, rel=4 * max(cv, 1e-9) / math.sqrt(COUNT))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-9)


def test_poisson_gaps_are_exponential_and_gamma_with_cv_two_is_burstier() -> None:
    # P(gap > t) = exp(-rate x t). A gamma of shape 1/4 has far more gaps near 0.
    poisson, bursty = gaps_s("poisson", 4), gaps_s("gamma(cv=2)", 4)
    for at in (0.05, 0.25, 1.0):
        assert (poisson > at).mean() == pytest.approx(math.exp(-4 * at), abs=0.005)
    assert (bursty < 0.001).mean() > 10 * (poisson < 0.001).mean()


@pytest.mark.parametrize("rate", [3, 0.7, 1e5])
def test_gaps_are_rounded_to_picoseconds_and_then_summed_in_integers(rate: float) -> None:
    arrivals = parse_arrivals("fixed", "workload.arrivals").draw(1000, rate, rng())
    gap_ps = round(1 / rate * 1e12)
    assert arrivals.dtype == np.int64
    assert arrivals.tolist() == [gap_ps * number for number in range(1, 1001)]


def test_poisson_is_the_exact_sum_of_its_rounded_gaps() -> None:
    arrivals = parse_arrivals("poisson", "workload.arrivals").draw(1000, 3, rng(5))
    total, expected = 0, []
    for unit_gap in rng(5).exponential(size=1000):
        total += round(float(unit_gap) / 3 * 1e12)
        expected.append(total)
    assert arrivals.tolist() == expected


def test_at_once_is_all_at_zero() -> None:
    assert parse_arrivals("at_once", "workload.arrivals").draw(3, 2, rng()).tolist() == [0, 0, 0]


def test_arrivals_may_span_their_limit_and_not_one_more_gap() -> None:
    fixed = parse_arrivals("fixed", "workload.arrivals")
    assert int(fixed.draw(6_000, 0.001, rng())[-1]) == LONGEST_SPAN_PS
    with pytest.raises(InputError, match=r"workload.arrivals = 'fixed': 6,001 arrivals at 0.001 requests/s"):
        fixed.draw(6_001, 0.001, rng())


@pytest.mark.parametrize("text", ["poisson", "gamma(cv=2)", "fixed"])
@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-12])
def test_an_absurdly_low_rate_is_an_error_and_not_an_overflow(text: str, rate: float) -> None:
    with pytest.raises(InputError, match=r"a higher rate"):
        parse_arrivals(text, "workload.arrivals").draw(5, rate, rng())


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Poisson",
        "poisson(cv=1)",
        "gamma",
        "gamma(cv=0)",
        "gamma(cv=-1)",
        "gamma(cv=nan)",
        "gamma(cv=inf)",
        "gamma(cv=)",
        "gamma(2)",
        "uniform(low=1, high=2)",
        "5",
    ],
)
def test_any_other_arrival_process_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_arrivals(value, "workload.arrivals")
    message = str(caught.value)
    assert message.startswith(f"workload.arrivals = {value!r}: ")
    assert "allowed: 'poisson', 'gamma(cv=2)'" in message
    assert "\n" not in message


# Both


@given(st.integers(0, 2**32), st.floats(1, 1e6), st.floats(0.01, 5), st.integers(1, 10**6), st.integers(1, 50))
def test_draws_are_whole_bounded_and_the_same_for_the_same_seed(
    seed: int, mean: float, sigma: float, most: int, count: int
) -> None:
    lengths = parse_lengths(f"lognormal(mean={mean}, sigma={sigma}, max={most})", KEY)
    drawn = lengths.draw(count, rng(seed))
    assert len(drawn) == count
    assert 1 <= drawn.min() <= drawn.max() <= most
    assert np.array_equal(drawn, lengths.draw(count, rng(seed)))


@given(st.integers(0, 2**32), st.sampled_from(["poisson", "gamma(cv=5)", "gamma(cv=0.01)", "fixed", "at_once"]))
def test_arrivals_ascend_and_are_the_same_for_the_same_seed(seed: int, text: str) -> None:
    process = parse_arrivals(text, "workload.arrivals")
    drawn = process.draw(30, 2.0, rng(seed))
    assert drawn.min() >= 0
    assert bool((np.diff(drawn) >= 0).all())
    assert np.array_equal(drawn, pickle.loads(pickle.dumps(process)).draw(30, 2.0, rng(seed)))


def test_another_seed_draws_otherwise() -> None:
    lengths, process = parse_lengths("lognormal(mean=1000, sigma=1)", KEY), parse_arrivals("poisson", KEY)
    assert not np.array_equal(lengths.draw(50, rng(1)), lengths.draw(50, rng(2)))
    assert not np.array_equal(process.draw(50, 1, rng(1)), process.draw(50, 1, rng(2)))
