"""What does a collective cost a member, in hops and in bytes over its link?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.collectives import Transfer, all_gather, all_reduce, goes_direct
from node.spec_file import load_machine, machine_names

SIZES = st.floats(0, 1e15)


def test_eight_members_reduce_in_two_phases() -> None:
    assert all_reduce(8192, 8) == Transfer(hops=2, bytes_sent=1.75 * 8192)  # 7 eighths in parts, and the same of sums


@pytest.mark.parametrize("size", [0, 1, 1e9])
def test_one_member_has_nobody_to_talk_to(size: float) -> None:
    assert all_reduce(size, 1) == all_gather(size, 1) == Transfer(0, 0)


def test_an_all_gather_sends_a_members_part_to_each_other_member() -> None:
    assert all_gather(8000, 8) == Transfer(1, 56_000)
    assert all_gather(5, 2) == Transfer(1, 5)


@given(size=SIZES, members=st.integers(2, 64))
def test_a_reduction_sends_each_byte_out_and_its_sum_back(size: float, members: int) -> None:
    found = all_reduce(size, members)
    assert found.hops == 2
    assert found.bytes_sent == pytest.approx(2 * size - 2 * size / members, rel=1e-12)
    assert found.bytes_sent <= 2 * all_gather(size, members).bytes_sent


@pytest.mark.parametrize(("members", "most"), [(3, 300_000), (4, 133_333), (8, 38_095), (16, 15_238)])
def test_a_sum_goes_direct_as_long_as_the_bytes_more_are_worth_a_hop(members: int, most: int) -> None:
    """Of S bytes, (n - 1) (1 - 2 / n) S more; 200 kB are worth it."""
    assert goes_direct(most, members, 200_000) and not goes_direct(most + 1, members, 200_000)


@pytest.mark.parametrize("members", [1, 2, 8])
def test_where_a_hop_is_worth_nothing_none_goes_direct_and_of_two_members_every_other_does(members: int) -> None:
    assert not goes_direct(1.0, members, None)
    assert goes_direct(1e12, members, 1) == (members == 2)


@given(size=SIZES, members=st.integers(2, 64), name=st.sampled_from(machine_names()))
def test_the_kind_that_a_machine_takes_is_the_quicker_one_alone_on_its_link(
    size: float, members: int, name: str
) -> None:
    peer = load_machine(name).peer
    direct, two_hops = (
        transfer.hops * peer.latency + transfer.bytes_sent / peer.bandwidth
        for transfer in (all_gather(size, members), all_reduce(size, members))
    )
    if peer.hop_worth is None:
        assert name.startswith("dgx")
    elif goes_direct(size, members, peer.hop_worth):
        assert direct <= two_hops * (1 + 1e-12)
    else:
        assert two_hops <= direct * (1 + 1e-12)
