"""Which groups have a home copy of which expert."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from node.errors import InputError
from node.units import Bytes

Homes = tuple[tuple[int, ...], ...]  # by expert, the groups that have it, in order
PLACEMENTS = ("modulo", "popularity")
HOMES = ("one_group", "all_groups")
ROUTERS = ("replicated", "group")


@dataclass(frozen=True, slots=True)
class Sharding:
    """The choices of the config's table ``[sharding]``, checked there.

    ``replicas``: how many experts, the most popular ones, are at home in every group where others are in one.
    ``router``: every group has the router and runs it, or group 0 alone, which then does nothing else.
    ``rebalance``: every so often (ps) experts move to where there is less work; 0: never.
    ``shares``: by expert, how many of 10^12 requests are expected to be for it; none where nothing is expected.
    """

    placement: str = "modulo"
    home: str = "one_group"
    replicas: int = 0
    router: str = "replicated"
    shares: tuple[int, ...] = ()
    rebalance: int = 0


def serving_of(sharding: Sharding, groups: int, *, routed: bool) -> range:
    """Those of so many ``groups`` that serve experts; ``InputError`` where the router has one and leaves none."""
    alone = routed and sharding.router == "group"
    if alone and groups == 1:
        raise InputError(
            "sharding.router = 'group': leaves no group for experts, because all sockets of the machine are one; lower "
            "sharding.tensor_parallel"
        )
    return range(int(alone), groups)


def homes_of(sharding: Sharding, groups: Sequence[int], weights: Sequence[Bytes], ddr: Bytes) -> Homes:
    """The homes of experts of so many bytes of ``weights`` per socket in ``groups``, whose sockets have ``ddr`` bytes.

    Each is in all groups, or all but the ``replicas`` most popular ones (of equals the lower number) are in one.
    ``modulo``: expert e in the group at place e mod groups. ``popularity``: see ``_balanced``.
    """
    count, everywhere = len(weights), tuple(groups)
    if sharding.home == "all_groups":
        return (everywhere,) * count
    expected = sharding.shares or (0,) * count
    replicated = set(sorted(range(count), key=lambda expert: (-expected[expert], expert))[: sharding.replicas])
    places = [expert % len(groups) for expert in range(count)]
    if sharding.placement == "popularity":
        free = ddr - sum(weights[expert] for expert in replicated)
        others = [expert for expert in range(count) if expert not in replicated]
        places = _balanced(expected, others, len(groups), weights, free)
    return tuple(everywhere if expert in replicated else (groups[place],) for expert, place in enumerate(places))


def _balanced(
    shares: Sequence[int], experts: Collection[int], groups: int, weights: Sequence[Bytes], ddr: Bytes
) -> list[int]:
    """A place for each of ``experts``, so that each group has about as much work: longest processing time first.

    The expert with the most work goes to the group that has the least so far and room for it (Graham, SIAM J. Appl.
    Math. 1969: at most a third above the best, where there is room); of equals the lower number. Work is share x bytes:
    a decode step reads all weights. Where no group has room it goes to the one with the most left, to be refused there.
    """
    work = {expert: shares[expert] * weights[expert] for expert in experts}
    loads, free, places = [0] * groups, [ddr] * groups, [0] * len(weights)
    for expert in sorted(experts, key=lambda expert: (-work[expert], expert)):
        roomy = [place for place in range(groups) if free[place] >= weights[expert]]
        place = min(roomy or [free.index(max(free))], key=lambda place: (loads[place], place))
        places[expert] = place
        loads[place] += work[expert]
        free[place] -= weights[expert]
    return places
