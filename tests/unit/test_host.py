"""Does the host serve calls at their cost, and its link to as many groups as it can?"""

from __future__ import annotations

import pytest

from node.hardware.host import Host
from node.spec_file import load_machine

SHARED = load_machine("dgx-a100")
PER_SOCKET = load_machine("dgx-a100", {"host_link.sharing": "per_socket"})
DIRECT = load_machine("sn40l-node", {"host.call_overhead": "1.5 ms"})


def test_calls_take_their_fixed_cost_one_after_another() -> None:
    host = Host(DIRECT)
    assert [host.call(calls, now=7) for calls in (0, 1, 3)] == [7, 1_500_000_007, 4_500_000_007]
    assert Host(SHARED).call(3, now=7) == 7  # the DGX has no cost per call apart from its launches


def test_the_cost_of_a_call_is_rounded_to_a_picosecond() -> None:
    assert Host(load_machine("sn40l-node", {"host.call_overhead": "0.0016 ns"})).call(1, now=0) == 2


def test_a_shared_link_serves_one_group_at_a_time() -> None:
    host = Host(SHARED)
    assert host.grant(10) == 10
    host.release(100)
    assert [host.grant(now) for now in (20, 99, 100, 150)] == [100, 100, 100, 150]
    host.release(300)
    assert host.grant(150) == 300


def test_a_shared_link_is_never_free_sooner_than_its_last_copy() -> None:
    host = Host(SHARED)
    host.release(100)
    host.release(60)
    assert host.grant(0) == 100


@pytest.mark.parametrize("machine", [PER_SOCKET, DIRECT])
def test_links_of_their_own_are_granted_at_once(machine) -> None:
    host = Host(machine)
    host.release(host.grant(10) + 1000)
    assert [host.grant(now) for now in (20, 999, 1500)] == [20, 999, 1500]
