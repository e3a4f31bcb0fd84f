"""Is each law of conservation, injected broken, caught by its name?"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from node.conservation import verify
from node.errors import InvariantError
from node.events import Cut
from node.request import Request
from node.runtime.scheduler import paper
from node.runtime.served import Served
from node.runtime.sharding import Region


@pytest.fixture
def outcome(clockwork, simulate, requests):
    """Two groups of two sockets; socket 3 is the second of group 1."""
    deployment = clockwork(sockets=4, degree=2, router=True)
    return simulate(deployment, requests(*((9 * n, 5, 1 + n % 4, n % 3) for n in range(12))))


def check(outcome) -> None:
    verify(outcome.deployment, outcome.simulation, outcome.counters, sum(row.e2e for row in outcome.rows))


def tampered(outcome, socket: int, counter: str, value: int):
    outcome.counters = deepcopy(outcome.counters)
    outcome.counters[socket][counter] = value


def test_what_was_simulated_passes(outcome):
    check(outcome)


# What the simulation counted


@pytest.mark.parametrize("change", [1, -1])
def test_littles_law_holds_to_the_picosecond(outcome, change):
    expected = outcome.simulation.totals.request_ps
    outcome.simulation.totals.request_ps += change
    with pytest.raises(InvariantError) as error:
        check(outcome)
    said = f"Little's law: request time: {expected + change:,}, but it must be {expected:,}"
    assert str(error.value) == said


def test_the_time_that_requests_say_they_took_is_held_against_the_integral(outcome):
    total = sum(row.e2e for row in outcome.rows)
    with pytest.raises(InvariantError, match="Little's law"):
        verify(outcome.deployment, outcome.simulation, outcome.counters, total - 1)


def test_nobody_is_left_in_the_system(outcome):
    outcome.simulation.totals.in_system = 1
    with pytest.raises(InvariantError, match="requests left in the system: 1, but it must be 0"):
        check(outcome)


@pytest.mark.parametrize("group", [0, 1])
def test_every_request_is_a_hit_or_a_miss(outcome, group):
    outcome.simulation.runtime.groups[group].hits += 1
    with pytest.raises(InvariantError, match="hits and misses: 13, but it must be 12"):
        check(outcome)


def test_an_activation_not_counted_is_missed(outcome):
    outcome.simulation.runtime.groups[1].activations[1] -= 1
    with pytest.raises(InvariantError, match="bytes copied in group 1: "):
        check(outcome)


def test_a_miss_counted_as_a_hit_is_missed_in_the_activations(outcome):
    group = outcome.simulation.runtime.groups[1]
    group.misses -= 1
    group.hits += 1
    with pytest.raises(InvariantError, match="misses and prefetches of group 1: "):
        check(outcome)


def test_an_expert_prefetched_for_nobody_is_found_out(outcome):
    outcome.simulation.runtime.groups[0].cache.unused.add(2)
    with pytest.raises(InvariantError, match="experts that group 0 prefetched for nobody: 1, but it must be 0"):
        check(outcome)


@pytest.mark.parametrize("change", [1, -1])
def test_the_charges_of_a_request_add_up_to_its_end_to_end_time(change):
    served = Served(Request(7, 100, 5, 5, 0))
    served.charge("queue", 130)
    served.charge("decode", 170)
    assert served.charges["queue"] == 30 and served.charges["decode"] == 40 and served.e2e(170) == 70
    served.charges["switch"] += change
    with pytest.raises(InvariantError, match=r"request 7: charges \{.*\} do not add up to 70 ps"):
        served.e2e(170)


# What the sockets counted


@pytest.mark.parametrize(("socket", "group"), [(0, 0), (1, 0), (2, 1), (3, 1)])
@pytest.mark.parametrize("change", [1, -1])
def test_every_socket_copied_its_shard_of_each_activation(outcome, socket, group, change):
    tampered(outcome, socket, "copied", outcome.counters[socket]["copied"] + change)
    with pytest.raises(InvariantError, match=f"bytes copied in group {group}: "):
        check(outcome)


@pytest.mark.parametrize("socket", [0, 3])
@pytest.mark.parametrize("change", [1, -1])
def test_only_weights_are_left_in_hbm(outcome, socket, change):
    tampered(outcome, socket, "hbm_used", outcome.counters[socket]["hbm_used"] + change)
    with pytest.raises(InvariantError, match=f"HBM of socket {socket} at the end: "):
        check(outcome)


@pytest.mark.parametrize(("counter", "tier"), [("hbm_peak", "HBM"), ("ddr_peak", "DDR")])
@pytest.mark.parametrize("socket", [0, 3])
def test_no_tier_is_ever_over_its_capacity_and_may_be_full(outcome, socket, counter, tier):
    machine = outcome.deployment.machine
    capacity = {"HBM": machine.hbm, "DDR": machine.ddr}[tier].capacity
    tampered(outcome, socket, counter, capacity)
    check(outcome)
    tampered(outcome, socket, counter, capacity + 1)
    said = f"{tier} peak of socket {socket}: {capacity + 1:,}, above {capacity:,}"
    with pytest.raises(InvariantError, match=f"^{said}$"):
        check(outcome)


@pytest.mark.parametrize("counter", ["dma_busy", "tile_busy"])
@pytest.mark.parametrize("socket", [0, 3])
def test_dma_tile_and_idle_time_never_exceed_the_makespan(outcome, socket, counter):
    found, idle = outcome.counters[socket], outcome.simulation.totals.idle_ps[socket // 2]
    spare = outcome.simulation.now - found["dma_busy"] - found["tile_busy"] - idle
    assert spare > 0 and idle > 0
    tampered(outcome, socket, counter, found[counter] + spare)
    check(outcome)
    tampered(outcome, socket, counter, found[counter] + spare + 1)
    with pytest.raises(InvariantError, match=f"DMA, tile and idle time of socket {socket}: "):
        check(outcome)


def test_a_group_that_idled_longer_than_its_sockets_had_time_is_caught(outcome):
    outcome.simulation.totals.idle_ps[1] += outcome.simulation.now
    with pytest.raises(InvariantError, match="DMA, tile and idle time of socket 2: "):
        check(outcome)


@pytest.mark.parametrize("socket", [0, 3])
def test_a_link_is_never_busy_for_longer_than_the_makespan(outcome, socket):
    tampered(outcome, socket, "link_busy", outcome.simulation.now)
    check(outcome)
    tampered(outcome, socket, "link_busy", outcome.simulation.now + 1)
    with pytest.raises(InvariantError, match=f"link time of socket {socket}: "):
        check(outcome)


# What idles


def test_idle_time_is_exactly_the_time_without_a_task(clockwork, simulate, requests):
    """Busy from 5 to 18 and from 30 to 33 ms; the idle time after the last task is nobody's."""
    outcome = simulate(clockwork(), requests((5, 5, 1, 0), (30, 5, 1, 0)))
    assert outcome.simulation.totals.idle_ps == [(5 + 12) * 10**9]
    assert outcome.simulation.totals.request_ps == (13 + 3) * 10**9
    assert outcome.simulation.now == 33 * 10**9


# Defects of a scheduler or of a layout


def scheduled(deployment, scheduler):
    deployment.__dict__["settings"] = replace(deployment.settings, scheduler=scheduler)
    return deployment


def test_a_group_that_falls_idle_while_somebody_waits_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = scheduled(clockwork(), lambda view: None if view.now else paper(view))
    with pytest.raises(InvariantError, match="group 0 is idle at 13,000,000,000 ps with requests waiting"):
        simulate(deployment, requests((0, 5, 1, 0), (0, 5, 1, 0)))


def test_a_group_that_stays_idle_while_somebody_waits_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = scheduled(clockwork(), lambda view: None)
    with pytest.raises(InvariantError, match="group 0 is idle at 5,000,000,000 ps with requests waiting"):
        simulate(deployment, requests((5, 5, 5, 0)))


def test_no_kv_cache_for_anybody_while_nobody_runs_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = clockwork(kv_tokens=10)
    layout = replace(deployment.layouts[0], kv=Region(0, 1))
    deployment.__dict__["layouts"] = (layout,)
    with pytest.raises(InvariantError, match="group 0: no KV cache for anybody, and nobody to wait for"):
        simulate(deployment, requests((0, 5, 5, 0)))


def test_a_cut_where_nothing_decodes_is_a_defect_that_is_named(clockwork, requests):
    simulation = clockwork().simulation(requests((0, 5, 5, 0)), lambda served, now: None)
    simulation.advance(1)
    with pytest.raises(InvariantError, match="group 0: a decode is cut at 0 ps, but none runs"):
        simulation._dispatch([Cut(0)])
