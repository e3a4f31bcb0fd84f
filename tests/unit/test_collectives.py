"""What does a collective cost a member, in hops and in bytes over its link?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.collectives import Transfer, all_gather, all_reduce

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
