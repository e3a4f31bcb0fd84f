"""Collectives between the sockets of a tensor-parallel group: hops and bytes over each member's link.

Every socket reaches every other over its own link, so one hop delivers to all. An all-reduce is a reduce-scatter and an
all-gather, which moves the fewest bytes (Thakur, Rabenseifner, Gropp 2005), each in one hop.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one collective costs a member: ``hops`` one after another, ``bytes_sent`` over its link."""

    hops: int
    bytes_sent: float


def all_reduce(size: float, members: int) -> Transfer:
    """Sum of ``size`` bytes held by each of ``members``; everyone gets the sum."""
    return Transfer(2, 2 * (members - 1) / members * size) if members > 1 else Transfer(0, 0.0)


def all_gather(size: float, members: int) -> Transfer:
    """``size`` bytes of each of ``members`` to everyone."""
    return Transfer(1, (members - 1) * size) if members > 1 else Transfer(0, 0.0)


COLLECTIVES = {"all_reduce": all_reduce, "all_gather": all_gather}
