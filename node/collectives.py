"""Collectives between the sockets of a tensor-parallel group: hops and bytes over each member's link.

Every socket reaches every other over its own link, so one hop delivers to all. An all-reduce is of one of two kinds:

- *direct*: each member sends all it has to every other, and everyone adds up; one hop;
- in two hops, a reduce-scatter and an all-gather, which move the fewest bytes (Thakur, Rabenseifner, Gropp 2005).

Which one goes by size: direct as long as that sends no more bytes beyond the fewest than the hop saved is worth. The
worth is a number of the machine, not worked out from its link: a collective that is hidden behind other work would take
another kind than is best for it, and a better link could make it slower.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one collective costs a member: ``hops`` one after another, ``bytes_sent`` over its link."""

    hops: int
    bytes_sent: float


def all_reduce(size: float, members: int) -> Transfer:
    """Sum of ``size`` bytes held by each of ``members``, in two hops; everyone gets the sum."""
    return Transfer(2, 2 * (members - 1) / members * size) if members > 1 else Transfer(0, 0.0)


def all_gather(size: float, members: int) -> Transfer:
    """``size`` bytes of each of ``members`` to everyone: a gather, or what a direct all-reduce adds up."""
    return Transfer(1, (members - 1) * size) if members > 1 else Transfer(0, 0.0)


def goes_direct(size: float, members: int, hop_worth: float | None) -> bool:
    """Whether an all-reduce of ``size`` bytes does; without a ``hop_worth`` in bytes none does."""
    if hop_worth is None or members == 1:
        return False
    return all_gather(size, members).bytes_sent - all_reduce(size, members).bytes_sent <= hop_worth


COLLECTIVES = {"all_reduce": all_reduce, "all_gather": all_gather}
