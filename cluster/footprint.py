"""How many machines hold a number of experts.

An expert counts as held where activating it takes at most a limit: from HBM it takes nothing, from the tier below
the time of the copy. Router and KV cache take their part of HBM first. Where experts spill below HBM, each has its
home copy there and HBM holds copies, so that the lower tier has to hold them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from node.allocator import Allocator
from node.deployment import Deployment
from node.runtime.homes import Sharding
from node.units import PS_PER_S


@dataclass(frozen=True)
class Row:
    """One machine and one number of experts. ``state`` is that of a single machine; ``cost_per_hour`` of all nodes."""

    machine: str
    experts: int
    nodes: int
    resident_in_hbm: int
    held_below_hbm: int
    state: str
    cost_per_hour: float | None = None


@dataclass(frozen=True)
class Capacity:
    """Experts that one machine has room for in each tier, and seconds to activate one from below."""

    hbm: int
    below: int
    activation_s: float

    def held(self, activation_limit_s: float) -> int:
        """Experts that count as held; those below HBM where activating one takes no longer than the limit."""
        return max(self.hbm, self.below if self.activation_s <= activation_limit_s else 0)


def capacity(deployment: Deployment) -> Capacity:
    """Fill the tiers of ``deployment`` with experts of its groups, in proportion to their counts, until one is full.

    An expert that is at home in every group takes room below in each of them, and is one expert.
    """
    groups, sharding = deployment.catalogue.groups, deployment.sharding
    alone = Sharding(router=sharding.router)
    one_each = tuple(replace(group, count=deployment.groups) for group in groups)
    least = replace(deployment, catalogue=replace(deployment.catalogue, groups=one_each), sharding=alone)
    first = [index * deployment.groups for index in range(len(groups))]  # an expert of each group
    order = sorted((place / group.count, index) for index, group in enumerate(groups) for place in range(group.count))
    sizes = [least.settings.sizes[first[index]].weights for _, index in order]
    region = least.layouts[-1].experts  # group 0 may have the router alone
    below = _fill(Allocator(0, least.machine.ddr.capacity), sizes)
    everywhere = below if sharding.home == "all_groups" else min(below, sharding.replicas)
    return Capacity(
        hbm=_fill(Allocator(region.start, region.size), sizes) * len(least.serving),
        below=everywhere + (below - everywhere) * len(least.serving),
        activation_s=max(least.activation_ps(expert) for expert in first) / PS_PER_S,
    )


def _fill(allocator: Allocator, sizes: Sequence[int]) -> int:
    """How many of ``sizes``, over and over, are allocated until the first has no room."""
    for count, size in enumerate(cycle(sizes)):
        if allocator.allocate(size) is None:
            return count
    raise AssertionError("an endless cycle ended")


def row(name: str, room: Capacity, experts: int, activation_limit_s: float, price: float | None = None) -> Row:
    """The machines needed for ``experts``, and what a single one makes of them; ``price``: of one, an hour."""
    spills = experts > room.hbm
    nodes = -(-experts // room.held(activation_limit_s))
    below = "spills" if experts <= room.below else "out_of_memory"
    state = below if spills else "fits"
    return Row(
        machine=name,
        experts=experts,
        nodes=nodes,
        resident_in_hbm=min(experts, room.hbm),
        held_below_hbm=max(0, min(experts, room.below) - room.hbm),
        state=state,
        cost_per_hour=None if price is None else nodes * price,
    )
