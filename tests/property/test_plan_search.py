"""Does the search find what trying every number of nodes of every candidate would?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cluster.config_file import values_of
from cluster.plan.asked import Asked
from cluster.plan.fewest import fewest
from cluster.plan.measure import Measured, measured
from cluster.plan.problem import Problem, problem_of
from cluster.plan.search import Search
from tests.planning import COUNTED, Emulated

MOST, SEEDS = 40, 4
counts = st.integers(1, MOST)


# One candidate


@given(least=st.integers(1, MOST + 5), guess=st.integers(-3, 2 * MOST), most=counts)
def test_the_fewest_is_where_a_threshold_is(least: int, guess: int, most: int) -> None:
    tried: set[int] = set()

    def meets(nodes: int) -> bool:
        tried.add(nodes)
        return nodes >= least

    found = fewest(meets, lambda nodes: not meets(nodes), guess, most)
    assert found == (least if least <= most else None)
    assert tried <= set(range(1, most + 1))
    away = abs(max(1, min(guess, most)) - min(least, most))
    assert len(tried) <= 4 + 2 * math.log2(away + 1)
    assert found in (None, 1) or found - 1 in tried


@given(
    least=st.integers(1, MOST),
    noisy=st.lists(st.booleans(), max_size=6),
    guess=counts,
)
def test_below_it_none_is_left_that_does_as_long_as_it_is_not_certain(
    least: int, noisy: list[bool], guess: int
) -> None:
    """Numbers of nodes below ``least`` that neither do nor fail for certain, but here and there seem to do."""
    seems = {least - 1 - place: does for place, does in enumerate(noisy) if least - 1 - place > 0}

    def meets(nodes: int) -> bool:
        return nodes >= least or seems.get(nodes, False)

    found = fewest(meets, lambda nodes: nodes < least and nodes not in seems, guess, MOST)
    assert found == min(nodes for nodes in range(1, MOST + 1) if meets(nodes))


# All candidates


@cache
def problem(prices: tuple[int | None, ...], most: int) -> Problem:
    """Four candidates, each on a machine at its price."""
    given = {"experts.count": 5, "experts.router": "none", "workload.requests": 300, "workload.rate": 9.0}
    given |= {"slo.ttft": "1 s", "workload.input_tokens": 64, "workload.output_tokens": 4}
    values = values_of({}, "", given.items())
    points = [{"runtime.eviction": name} for name in ("lru", "lfu", "arc", "cost_aware")]
    found = problem_of(Asked(0.9, SEEDS, most), values, points, {}, None, None)
    candidates = [
        replace(one, machine=replace(one.machine, cost_per_hour=price))
        for one, price in zip(found.candidates, prices, strict=True)
    ]
    return replace(found, candidates=candidates)


NAMES = ("lru", "lfu", "arc", "cost_aware")


def falling(drawn: Sequence[int], noise: Sequence[int]) -> list[list[int]]:
    """Misses that never grow with nodes, the same in all seeds but for a noise that is the same at all numbers."""
    in_order = sorted(drawn, reverse=True)
    return [[max(0, min(COUNTED, misses + one)) for one in noise] for misses in in_order]


curve = st.builds(
    falling,
    st.lists(st.integers(0, COUNTED), min_size=12, max_size=12),
    st.lists(st.integers(-20, 20), min_size=SEEDS, max_size=SEEDS),
)


def exhaustive(problem: Problem, missed: dict[str, Sequence[Sequence[int]]]) -> dict[str, dict[int, Measured]]:
    """Every number of nodes of every candidate, from all seeds."""
    runs = Emulated(missed, [1.0] * 4)
    return {
        one.config.runtime.eviction: {
            nodes: measured(nodes, [runs.found(one.at(nodes, seed)) for seed in range(SEEDS)], ["all"])
            for nodes in range(1, 13)
        }
        for one in problem.candidates
    }


@given(
    curves=st.lists(curve, min_size=4, max_size=4),
    prices=st.sampled_from([(None,) * 4, (3, 3, 3, 3), (1, 2, 3, 10), (5, None, 1, 2)]),
    capacity=st.lists(st.floats(0.5, 20), min_size=4, max_size=4),
)
def test_the_plan_is_the_cheapest_of_all_that_there_are(
    curves: list[list[list[int]]], prices: tuple[int | None, ...], capacity: list[float]
) -> None:
    asked, missed = problem(prices, 12), dict(zip(NAMES, curves, strict=True))
    runs = Emulated(missed, capacity)
    search = Search(asked, runs, lambda _what, _nodes: None)
    search.run()
    everything = exhaustive(asked, missed)
    meets = {
        name: [nodes for nodes, one in tried.items() if one.meets(asked.asked)] for name, tried in everything.items()
    }
    price = {name: 1 if None in prices else of for name, of in zip(NAMES, prices, strict=True)}
    cheapest = min((nodes * (price[name] or 1) for name, of in meets.items() for nodes in of), default=None)
    best = search.best
    assert (best is None) == (cheapest is None)
    for row in search.rows:
        name = row.candidate.config.runtime.eviction
        one_price = price[name] or 1
        assert row.searched and row.most <= 12
        if row.nodes is None:
            assert not [nodes for nodes in meets[name] if nodes * one_price <= (cheapest or math.inf)]
        else:
            assert row.nodes in meets[name]
        for nodes, one in row.tried.items():
            whole = everything[name][nodes]
            assert one.meets(asked.asked) == whole.meets(asked.asked)
            assert one.seeds in (2, SEEDS) and (one.seeds < SEEDS or one == whole)
            assert one.seeds == SEEDS or not whole.meets(asked.asked)
    if best is not None and best.nodes is not None:
        assert best.nodes * (price[best.candidate.config.runtime.eviction] or 1) == cheapest
        assert best.plan == everything[best.candidate.config.runtime.eviction][best.nodes]
        assert best.nodes == 1 or (best.below is not None and best.below.seeds == SEEDS)
        equal = [row for row in search.rows if row.nodes and row.nodes * price_of(row, price) == cheapest]
        assert best.plan.worst.low == max(row.plan.worst.low for row in equal)  # type: ignore[union-attr]
    assert runs.runs <= 4 + 4 * 12 * SEEDS


def price_of(row: Any, price: dict[str, int | None]) -> int:
    return price[row.candidate.config.runtime.eviction] or 1
