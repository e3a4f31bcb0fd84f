"""Collectives between the sockets of a tensor-parallel group: hops and bytes over each member's link.

Every socket reaches every other over its own link, so one hop delivers to all. Of the two ways to run a
collective the quicker is taken: in one hop (everybody sends everything to everybody: latency-optimal) or in two
phases (reduce-scatter, then all-gather: bandwidth-optimal; Thakur, Rabenseifner, Gropp 2005).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one collective costs a member: ``hops`` one after another, ``bytes_sent`` over its link."""

    hops: int
    bytes_sent: float

    def seconds(self, bandwidth: float, latency: float) -> float:
        """Time at ``bandwidth`` (bytes/s, one way) and ``latency`` (s per hop)."""
        return self.hops * latency + self.bytes_sent / bandwidth


def all_reduce(size: float, members: int, bandwidth: float, latency: float) -> Transfer:
    """Sum of ``size`` bytes held by each of ``members``; everyone gets the sum."""
    if members == 1:
        return Transfer(0, 0.0)
    others = members - 1
    one_hop = Transfer(1, others * size)
    two_phase = Transfer(2, 2 * others / members * size)
    return one_hop if one_hop.seconds(bandwidth, latency) <= two_phase.seconds(bandwidth, latency) else two_phase


def all_gather(size: float, members: int) -> Transfer:
    """``size`` bytes of each of ``members`` to everyone."""
    return Transfer(1, (members - 1) * size) if members > 1 else Transfer(0, 0.0)
