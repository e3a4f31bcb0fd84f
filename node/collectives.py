"""Collectives between the sockets of a tensor-parallel group: hops and bytes over each member's link.

Every socket reaches every other over its own link, so one hop delivers to all. There are two ways to run an
all-reduce: in one hop (everybody sends everything to everybody: latency-optimal) or in two phases (reduce-scatter, then
all-gather: bandwidth-optimal; Thakur, Rabenseifner, Gropp 2005). Who runs it picks the quicker.
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


def all_reduce(size: float, members: int) -> tuple[Transfer, Transfer]:
    """Sum of ``size`` bytes held by each of ``members``; everyone gets the sum: in one hop, in two phases."""
    others = members - 1
    if not others:
        return Transfer(0, 0.0), Transfer(0, 0.0)
    return Transfer(1, others * size), Transfer(2, 2 * others / members * size)


def all_gather(size: float, members: int) -> Transfer:
    """``size`` bytes of each of ``members`` to everyone."""
    return Transfer(1, (members - 1) * size) if members > 1 else Transfer(0, 0.0)
