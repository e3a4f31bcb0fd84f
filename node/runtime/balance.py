"""Which experts should move, so that each group has about as much work as was asked for of late."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import NamedTuple

UNEVEN = Fraction(11, 10)  # of the mean: a group with more work than that gives some away


class Move(NamedTuple):
    """``expert`` goes from one group to another."""

    expert: int
    source: int
    target: int


def moves(work: Mapping[int, int], homes: Mapping[int, int], groups: Collection[int]) -> list[Move]:
    """The moves that even out ``work`` by expert, each at home in one of ``groups``; none where it is even enough.

    Again and again the group with the most work gives one with the least the expert that comes nearest to halving the
    difference between them, as long as that lowers the most; of equals those with the lower number. None moves twice.
    """
    loads = dict.fromkeys(groups, 0)
    for expert, home in homes.items():
        loads[home] += work.get(expert, 0)
    here, found = dict(homes), list[Move]()
    while True:
        busiest = max(loads, key=lambda group: (loads[group], -group))
        idlest = min(loads, key=lambda group: (loads[group], group))
        gap = loads[busiest] - loads[idlest]
        movable = [one for one, home in here.items() if home == busiest and 0 < work.get(one, 0) < gap]
        if loads[busiest] * len(loads) <= UNEVEN * sum(loads.values()) or not movable:
            return found
        expert = min(movable, key=lambda one: (abs(gap - 2 * work[one]), one))
        del here[expert]
        loads[busiest] -= work[expert]
        loads[idlest] += work[expert]
        found.append(Move(expert, busiest, idlest))
