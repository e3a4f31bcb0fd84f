"""Is virtual time held to wall time, and is it said by how much a run is late?"""

from __future__ import annotations

from itertools import pairwise

import pytest

from cluster.backends import LocalBackend
from cluster.nodes.live import Live
from cluster.nodes.node import State
from cluster.nodes.pauses import Pauses
from cluster.pace import Pace, factor_of
from cluster.runner import prepare, run
from node.errors import InputError
from tests.metered import config

PS_PER_S = 10**12


class Wall:
    """A clock that goes on where somebody sleeps, and by itself by ``work_s`` each time that it is looked at."""

    def __init__(self, work_s: float = 0.0) -> None:
        self.now, self.work_s, self.slept_s = 100.0, work_s, 0.0

    def __call__(self) -> float:
        self.now += self.work_s
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1
        self.now += seconds
        self.slept_s += seconds


@pytest.mark.parametrize("factor", [0.5, 1.0, 20.0])
def test_nobody_is_ahead_of_the_clock(factor: float) -> None:
    wall = Wall()
    pace = Pace(factor, wall, wall.sleep)
    wall.now += 7  # before it begins
    pace.begin()
    for virtual in (0, 3, 3.25, 10):
        pace.hold(round(virtual * PS_PER_S))
        assert wall.now == pytest.approx(107 + virtual / factor)
        assert pace.lag_s == pytest.approx(0)
    assert pace.passed == 10 * PS_PER_S
    wall.now += 60
    pace.hold(20 * PS_PER_S)
    assert pace.lag_s == pytest.approx(max(0.0, 60 - 10 / factor), abs=1e-6)
    assert pace.wall_s() == pytest.approx(wall.now - 107)


def test_as_fast_as_can_be_waits_for_nothing() -> None:
    wall = Wall()
    pace = Pace(None, wall, wall.sleep)
    pace.hold(10**18)
    assert (wall.slept_s, pace.lag_s, pace.window()) == (0, 0, None)


def test_after_the_end_time_stands_still() -> None:
    wall = Wall()
    pace = Pace(1.0, wall, wall.sleep)
    wall.now += 5
    pace.hold(PS_PER_S)
    assert pace.lag_s == pytest.approx(4)
    pace.end()
    wall.now += 50
    assert (pace.wall_s(), pace.lag_s) == (5, 0)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_paced_run_comes_to_the_same_results_when_it_is_due(nodes: int) -> None:
    """Whoever watches is never told of anything before the clock has come to it, and often enough."""
    settings = config(routing__nodes=nodes) if nodes > 1 else config()
    free = run(settings, LocalBackend(), prepare(settings))
    wall = Wall()
    pace = Pace(4.0, wall, wall.sleep)
    told: list[tuple[float, float]] = []

    def watch(state: State) -> None:
        told.append((state.now / PS_PER_S, wall.now))

    paced = run(settings, LocalBackend(), prepare(settings), Live(watch, pace))
    assert paced.summary == free.summary
    assert all(wall_s - 100 >= virtual_s / 4 - 1e-9 for virtual_s, wall_s in told)
    makespan = float(str(free.summary["makespan_s"]))
    assert told[-1][0] == pytest.approx(makespan) and wall.slept_s == pytest.approx(makespan / 4, rel=0.1)
    longest = max(later - sooner for (sooner, _), (later, _) in pairwise(told))
    assert longest < 4 * 4.0  # windows are of 0.5 s at this pace: 2 s of virtual time, and an answer's length


def test_paces() -> None:
    assert (factor_of("max"), factor_of("1"), factor_of("2.5")) == (None, 1.0, 2.5)
    for wrong in ("0", "-1", "nan", "inf", "fast", ""):
        with pytest.raises(InputError, match=f"--pace '{wrong}': must be a number above zero"):
            factor_of(wrong)


def test_a_run_that_goes_on_does_not_wait_for_what_is_past() -> None:
    wall = Wall()
    pace = Pace(2.0, wall, wall.sleep)
    pace.begin(30 * PS_PER_S)
    assert pace.passed == 30 * PS_PER_S
    pace.hold(30 * PS_PER_S)
    assert wall.slept_s == 0
    pace.hold(34 * PS_PER_S)
    assert wall.slept_s == pytest.approx(2)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_run_that_goes_on_waits_from_where_it_was(nodes: int) -> None:
    settings, states = config(routing__nodes=nodes, cluster__window="1 s"), list[tuple[int, bytes]]()
    prepared, now = prepare(settings), 0

    def watch(state: State) -> None:
        nonlocal now
        now = state.now

    live = Live(watch=watch, pauses=Pauses(lambda: True, lambda state: states.append((now, state))))
    run(settings, LocalBackend(), prepared, live)
    makespan, (at, state), wall = now, states[len(states) // 2], Wall()
    again = Live(pace=Pace(4.0, wall, wall.sleep), pauses=Pauses(begun=state))
    run(settings, LocalBackend(), prepared, again)
    assert 0 < at < makespan
    assert wall.slept_s == pytest.approx((makespan - at) / PS_PER_S / 4, abs=1e-6)


def test_whoever_is_in_a_hurry_waits_no_longer() -> None:
    wall = Wall()
    pace = Pace(1.0, wall, wall.sleep, hurry=lambda: wall.slept_s > 1)
    pace.hold(100 * PS_PER_S)
    assert 1 < wall.slept_s < 1.2
