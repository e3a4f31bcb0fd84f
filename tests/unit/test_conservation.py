"""Is each law of conservation, injected broken, caught by its name?"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from node.conservation import verify
from node.errors import InvariantError
from node.request import Request, Requests
from node.runtime.ledger import CHARGES, Ledger
from node.runtime.scheduler import paper
from node.runtime.sharding import Region


@pytest.fixture
def outcome(clockwork, simulate, requests):
    """Two groups of two sockets; socket 3 is the second of group 1."""
    deployment = clockwork(sockets=4, degree=2, router=True)
    return simulate(deployment, requests(*((9 * n, 5, 1 + n % 4, n % 3) for n in range(12))))


def check(outcome) -> None:
    verify(outcome.deployment, outcome.simulation, outcome.counters, outcome.simulation.columns())


def tampered(outcome, socket: int, counter: str, value: int):
    outcome.counters = deepcopy(outcome.counters)
    outcome.counters[socket][counter] = value


def test_what_was_simulated_passes(outcome):
    check(outcome)


# What the simulation counted


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("column", ["queue", "stall", "e2e"])
def test_littles_law_holds_to_the_picosecond(outcome, column, change):
    columns = outcome.simulation.columns()
    columns[column][3] += change
    expected = sum(row.e2e for row in outcome.rows)
    shown = [expected, expected + change]  # the integral, what the charges come to
    integral, charged = reversed(shown) if column == "e2e" else shown
    with pytest.raises(InvariantError) as error:
        verify(outcome.deployment, outcome.simulation, outcome.counters, columns)
    assert str(error.value) == f"Little's law: request time: {integral:,}, but it must be {charged:,}"


def test_nobody_is_left_in_the_system(outcome):
    outcome.simulation._lanes[1].completed -= 1
    with pytest.raises(InvariantError, match="requests left in the system: 1, but it must be 0"):
        check(outcome)


def test_the_run_is_over_when_the_last_request_ends(outcome):
    outcome.simulation._lanes[0].now = outcome.simulation.now + 5
    with pytest.raises(InvariantError, match="end of the last request: "):
        check(outcome)


@pytest.mark.parametrize("group", [0, 1])
def test_every_request_is_a_hit_or_a_miss(outcome, group):
    outcome.simulation.groups[group].hits_of[0] += 1
    with pytest.raises(InvariantError, match="hits and misses: 13, but it must be 12"):
        check(outcome)


def test_an_activation_not_counted_is_missed(outcome):
    outcome.simulation.groups[1].activations[1] -= 1
    with pytest.raises(InvariantError, match="bytes copied in group 1: "):
        check(outcome)


def test_a_miss_counted_as_a_hit_is_missed_in_the_activations(outcome):
    group = outcome.simulation.groups[1]
    group.misses_of[0] -= 1
    group.hits_of[0] += 1
    with pytest.raises(InvariantError, match="misses and prefetches of group 1: "):
        check(outcome)


def test_an_expert_prefetched_for_nobody_is_found_out(outcome):
    outcome.simulation.groups[0].cache.unused.add(2)
    with pytest.raises(InvariantError, match="experts that group 0 prefetched for nobody: 1, but it must be 0"):
        check(outcome)


@pytest.mark.parametrize(("called", "clock"), [(149, 25), (131, 0), (165, 26), (151, -5)])
def test_a_request_is_charged_each_picosecond_once_or_it_is_a_defect(called, clock):
    """Copied until 131, prefilled until 150; ends at 170 with 25 ps more on the decode clock than there were."""
    ledger = Ledger(1)
    ledger.served[0] = ledger.task((0, 130, 131, called, 150, 1_000))
    ledger.end([0], 170, 1_000 + clock)
    requests = Requests.of([Request(7, 100, 5, 5, 0)])
    if (called, clock) == (131, 0):
        columns = ledger.columns(requests, np.array([0]), routed=False)
        charges = {name: int(column[0]) for name, column in columns.items() if column[0] and name in CHARGES}
        assert charges == {"queue": 30, "switch": 1, "prefill": 19, "stall": 20}
        assert (columns["e2e"][0], columns["ttft"][0], columns["group"][0]) == (70, 50, 0)
        return
    with pytest.raises(InvariantError, match=r"request 7: charges \{.*\} do not add up to 70 ps"):
        ledger.columns(requests, np.array([0]), routed=False)


# What the sockets counted


@pytest.mark.parametrize(("socket", "group"), [(0, 0), (1, 0), (2, 1), (3, 1)])
@pytest.mark.parametrize("change", [1, -1])
def test_every_socket_copied_its_shard_of_each_activation(outcome, socket, group, change):
    tampered(outcome, socket, "copied", outcome.counters[socket]["copied"] + change)
    with pytest.raises(InvariantError, match=f"bytes copied in group {group}: "):
        check(outcome)


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("switching", ["expert", "program"])
def test_every_socket_loaded_the_programs_that_were_planned(clockwork, simulate, requests, switching, change):
    asked = requests(*((9 * n, 5, 1 + n % 4, n % 3) for n in range(12)))
    outcome = simulate(clockwork(sockets=4, degree=2, switching=switching), asked)
    check(outcome)
    tampered(outcome, 3, "loaded", outcome.counters[3]["loaded"] + change)
    with pytest.raises(InvariantError, match="bytes of programs loaded by socket 3: "):
        check(outcome)


@pytest.mark.parametrize("counter", ["hbm", "ddr"])
def test_only_weights_and_programs_are_left(clockwork, simulate, requests, counter):
    outcome = simulate(clockwork(switching="program"), requests((0, 5, 3, 0)))
    programs = outcome.simulation.groups[0].programs
    weights = {"hbm": 1, "ddr": 3}[counter] * outcome.deployment.settings.sizes[0].weights
    assert outcome.counters[0][f"{counter}_used"] == weights + programs.used and programs.used == programs.homes > 0
    tampered(outcome, 0, f"{counter}_used", weights)
    with pytest.raises(InvariantError, match=f"{counter.upper()} of socket 0 at the end: "):
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
    found, idle = outcome.counters[socket], outcome.simulation.idle_ps[socket // 2]
    spare = outcome.simulation.now - found["dma_busy"] - found["tile_busy"] - idle
    assert spare > 0 and idle > 0
    tampered(outcome, socket, counter, found[counter] + spare)
    check(outcome)
    tampered(outcome, socket, counter, found[counter] + spare + 1)
    with pytest.raises(InvariantError, match=f"DMA, tile and idle time of socket {socket}: "):
        check(outcome)


def test_a_group_that_idled_longer_than_its_sockets_had_time_is_caught(outcome):
    outcome.simulation._lanes[1].idle_ps += outcome.simulation.now
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
    assert outcome.simulation.idle_ps == [(5 + 12) * 10**9]
    assert outcome.simulation.now == 33 * 10**9


def test_who_waits_is_held_up_no_longer_than_the_copies_have_to_stay(clockwork, simulate, requests):
    deployment = clockwork(slots=1, min_residency=50 * 10**9)
    outcome = simulate(deployment, requests((0, 5, 1, 0), (0, 5, 1, 1), (0, 5, 1, 2)))
    assert outcome.simulation.held_ps == [(60 - 13 + 120 - 73) * 10**9]
    lane = outcome.simulation._lanes[0]
    lane.held_ps = 3 * 50 * 10**9
    check(outcome)
    lane.held_ps += 1
    with pytest.raises(InvariantError, match="time that group 0 was held up: 150,000,000,001, above 150,000,000,000"):
        check(outcome)


# Defects of a scheduler or of a layout


def scheduled(deployment, scheduler):
    deployment.__dict__["settings"] = replace(deployment.settings, scheduler=scheduler)
    return deployment


def test_a_group_that_falls_idle_while_somebody_waits_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = scheduled(clockwork(), lambda view, now: None if now else paper(view, now))
    with pytest.raises(InvariantError, match="group 0 is idle at 13,000,000,000 ps with requests waiting"):
        simulate(deployment, requests((0, 5, 1, 0), (0, 5, 1, 0)))


def test_who_has_to_stay_is_no_excuse_where_another_could_come(clockwork, simulate, requests):
    deployment = clockwork(slots=2, min_residency=50 * 10**9)
    deployment = scheduled(deployment, lambda view, now: None if now else paper(view, now))
    with pytest.raises(InvariantError, match="group 0 is idle at 13,000,000,000 ps with requests waiting"):
        simulate(deployment, requests((0, 5, 1, 0), (0, 5, 1, 1)))


def test_a_group_that_stays_idle_while_somebody_waits_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = scheduled(clockwork(), lambda view, now: None)
    with pytest.raises(InvariantError, match="group 0 is idle at 5,000,000,000 ps with requests waiting"):
        simulate(deployment, requests((5, 5, 5, 0)))


def test_no_kv_cache_for_anybody_while_nobody_runs_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = clockwork(kv_tokens=10)
    layout = replace(deployment.layouts[0], kv=Region(0, 1))
    deployment.__dict__["layouts"] = (layout,)
    with pytest.raises(InvariantError, match="group 0: no KV cache for anybody, and nobody to wait for"):
        simulate(deployment, requests((0, 5, 5, 0)))
