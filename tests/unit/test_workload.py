"""Does a workload hold the requests its keys ask for, each key changing only what it names?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.workload import WorkloadConfig, load, validate
from node.errors import InputError
from tests.unit.drawn import CONFIG, EIGHT, column, generate


def test_requests_are_numbered_in_order_of_arrival() -> None:
    workload = generate()
    assert [request.id for request in workload.requests] == list(range(300))
    assert column(workload, "arrival") == sorted(column(workload, "arrival"))
    assert all(type(value) is int for request in workload.requests for value in (request.arrival, request.expert))
    assert (workload.source, workload.refused, workload.experts_given) == ("generated", [], False)
    assert workload.notes == ()


def test_one_seed_is_one_workload() -> None:
    assert generate(seed=3) == generate(seed=3)
    other = generate(seed=4)
    for name in ("arrival", "input_tokens", "output_tokens", "expert"):
        assert column(generate(seed=3), name) != column(other, name)


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ("arrival", {"rate": 9.0}),
        ("arrival", {"arrivals": "gamma(cv=2)"}),
        ("arrival", {"rate_scale": 2.0}),
        ("input_tokens", {"input_tokens": "uniform(low=1, high=100)"}),
        ("output_tokens", {"output_tokens": 12}),
        ("expert", {"popularity": "uniform"}),
        ("expert", {"zipf_s": 2.0}),
        ("expert", {"popularity": "distinct"}),
    ],
)
def test_a_key_changes_its_own_column_and_no_other(changed: str, keys: dict[str, object]) -> None:
    before, after = generate(), generate(**keys)
    for name in ("arrival", "input_tokens", "output_tokens", "expert"):
        assert (column(before, name) != column(after, name)) == (name == changed)


def test_columns_are_not_drawn_from_one_stream() -> None:
    workload = generate(
        requests=20_000,
        input_tokens="uniform(low=1, high=1000000)",
        output_tokens="uniform(low=1, high=1000000)",
    )
    gaps = np.diff(column(workload, "arrival"), prepend=0)
    columns = np.array([gaps, *(column(workload, name) for name in ("input_tokens", "output_tokens", "expert"))])
    correlations = np.corrcoef(columns) - np.eye(4)
    assert np.abs(correlations).max() < 4 / math.sqrt(20_000)


@pytest.mark.parametrize(
    ("keys", "weights", "shares"),
    [
        ({"popularity": "uniform"}, [1, 2, 5], [1 / 8, 2 / 8, 5 / 8]),
        ({"popularity": "zipf"}, [1, 1, 1], [6 / 11, 3 / 11, 2 / 11]),
        ({"popularity": "zipf", "zipf_s": 2}, [1, 8, 9], [1 / 4, 2 / 4, 1 / 4]),
        ({"popularity": "zipf", "zipf_s": 0}, [3, 1], [3 / 4, 1 / 4]),
        ({"popularity": "zipf", "zipf_s": 1e300}, [1, 1], [1, 0]),
        ({"popularity": "uniform"}, [1e308, 1e308, 1e-308], [1 / 2, 1 / 2, 0]),
    ],
)
def test_experts_come_in_their_shares(keys: dict[str, object], weights: list[float], shares: list[float]) -> None:
    experts = column(generate(requests=40_000, weights=weights, **keys), "expert")
    counts = np.bincount(experts, minlength=len(weights))
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - share * 40_000) <= 4 * math.sqrt(40_000 * share * (1 - share))


def test_distinct_takes_the_experts_in_turn_whatever_their_weights() -> None:
    workload = generate(requests=7, weights=[1, 1000, 1], popularity="distinct")
    assert column(workload, "expert") == [0, 1, 2, 0, 1, 2, 0]


def test_rate_scale_works_on_generated_requests() -> None:
    once, thrice = column(generate(), "arrival"), column(generate(rate_scale=3), "arrival")
    assert all(abs(3 * fast - slow) <= 1.5 for fast, slow in zip(thrice, once, strict=True))


@given(st.integers(1, 500), st.integers(1, 500), st.integers(2, 300))
def test_a_clipped_request_fits_and_one_that_fits_is_left_alone(inputs: int, outputs: int, context: int) -> None:
    config = WorkloadConfig(requests=1, input_tokens=inputs, output_tokens=outputs, over_context="clip")
    (request,) = load(config, [1], [context], 1).requests
    clipped = (request.input_tokens, request.output_tokens)
    assert min(clipped) >= 1
    assert sum(clipped) == min(context, inputs + outputs)
    if inputs + outputs <= context:
        assert clipped == (inputs, outputs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("requests", value) for value in (0, -1, 10**7 + 1, 2.5, True, "5")),
        *(("rate", value) for value in (0, -1.0, math.nan, math.inf, "2", True, 10**400)),
        *(("rate_scale", value) for value in (0, -1.0, math.nan, math.inf)),
        *(("zipf_s", value) for value in (-0.1, math.nan, math.inf, -math.inf)),
        *(("limit", value) for value in (0, -1, 1.5)),
        *(("warmup", value) for value in (-1, 300, 301, 1.5)),
        *(("popularity", value) for value in ("", "Zipf", "zipf(s=1)")),
        *(("over_context", value) for value in ("", "drop")),
        *(("arrivals", value) for value in ("", "gamma(cv=0)")),
        *(("input_tokens", value) for value in (0, "many")),
        *(("output_tokens", value) for value in (-1, "uniform(low=2, high=1)")),
    ],
)
def test_a_bad_value_is_told_with_its_key(key: str, value: object) -> None:
    config = replace(CONFIG, **{key: value})  # type: ignore[arg-type]
    for check in (validate, lambda config: load(config, *EIGHT, seed=1)):
        with pytest.raises(InputError) as caught:
            check(config)
        message = str(caught.value)
        assert message.startswith(f"workload.{key} = {value!r}: ")
        assert "\n" not in message
        assert "must be" in message or "allowed: " in message


def test_the_defaults_are_valid() -> None:
    validate(WorkloadConfig())


def test_all_may_be_refused() -> None:
    workload = generate(requests=2, input_tokens=5000, over_context="refuse")
    assert ([request.id for request in workload.refused], workload.requests) == ([0, 1], [])


def test_arrivals_beyond_the_longest_span_are_told() -> None:
    with pytest.raises(InputError, match=r"workload.arrivals = 'poisson': 300 arrivals at 1e-06"):
        generate(rate=1e-6)
    with pytest.raises(InputError, match=r"workload.rate_scale = 1e-05: arrivals would span more than"):
        generate(rate_scale=1e-5)


@pytest.mark.parametrize(
    ("weights", "contexts", "message"),
    [
        ([], [], "0 weights, 0 contexts"),
        ([1], [10, 10], "1 weights, 2 contexts"),
        ([1, 0], [10, 10], "weight of expert 1 = 0"),
        ([math.nan], [10], "weight of expert 0 = nan"),
        ([1], [1], "context of expert 0 = 1: must be a whole number from 2"),
    ],
)
def test_bad_experts_are_told(weights: list[float], contexts: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(CONFIG, weights, contexts, 1)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_a_bad_seed_is_told(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed = {seed}: must be a whole number"):
        load(CONFIG, *EIGHT, seed)
