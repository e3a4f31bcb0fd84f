"""Which sockets hold which expert, and at what addresses: the layout of DDR and HBM, equal on all sockets of a group.

A node of S sockets at tensor parallelism T is S/T groups. Which experts a group has, ``homes`` says; each is sharded
over its T sockets. An address is the same on all of them: where shards differ in size, room is made for the largest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from node.allocator import Allocator
from node.errors import InputError, OutOfMemoryError
from node.runtime.homes import Homes
from node.units import Bytes


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Per socket, the largest shard of a group: bytes of weights, KV bytes of one token; attention ``window``."""

    weights: Bytes
    kv_token: Bytes
    window: int | None

    def kv_bytes(self, lengths: Sequence[int]) -> Bytes:
        """KV cache of sequences of so many tokens each."""
        if self.window is not None:
            lengths = [min(length, self.window) for length in lengths]
        return self.kv_token * sum(lengths)


@dataclass(frozen=True, slots=True)
class Region:
    """A range of addresses."""

    start: int
    size: Bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Addresses of one group: ``ddr[expert]`` of its experts' home copies; the parts of HBM (router: 0 bytes if none).

    ``swap``: what is left of DDR. ``programs``: the end of HBM, for compiled programs where they are switched.

    ``pinned[expert]``: of those that never leave HBM, between the KV cache and ``experts``, the room of all others.
    ``shared``: whether other groups have some of its experts, too.
    """

    group: int
    ddr: dict[int, int]
    router: Region
    kv: Region
    experts: Region
    pinned: dict[int, int] = field(default_factory=dict)
    shared: bool = False
    swap: Region = field(default_factory=lambda: Region(0, 0))
    programs: Region = field(default_factory=lambda: Region(0, 0))


def groups_of(sockets: int, degree: int) -> int:
    """How many groups of ``degree`` sockets there are; ``InputError`` where they do not come out even."""
    if degree < 1 or sockets % degree:
        allowed = ", ".join(str(n) for n in range(1, sockets + 1) if sockets % n == 0)
        raise InputError(
            f"sharding.tensor_parallel = {degree}: must divide the machine's {sockets} sockets: one of {allowed}"
        )
    return sockets // degree


def lay_out(
    group: int,
    homes: Homes,
    experts: Sequence[ModelSize],
    router: ModelSize | None,
    kv_reserve: Bytes,
    capacity: tuple[Bytes, Bytes],
    pinned: Collection[int] = (),
) -> Layout:
    """The layout of one group, with the experts that ``homes`` gives it; ``capacity`` is (DDR, HBM) of a socket.

    ``OutOfMemoryError`` if it does not fit. Beside the ``pinned`` experts HBM must have room for the largest of the
    others.
    """
    ddr_capacity, hbm_capacity = capacity
    where = f"each socket of group {group}"
    allocator = Allocator(0, ddr_capacity)
    ddr: dict[int, int] = {}
    mine = [expert for expert, of in enumerate(homes) if group in of]
    shared = any(len(homes[expert]) > 1 for expert in mine)
    for expert in mine:
        address = allocator.allocate(experts[expert].weights)
        if address is None:
            raise OutOfMemoryError(
                "DDR",
                where,
                asked=experts[expert].weights,
                free=allocator.free,
                largest_hole=allocator.largest_hole,
                hint=f"for expert {expert} of {len(experts)}: {len(ddr)} of the group's {len(mine)} fit; "
                + ("have fewer home copies (sharding.home, sharding.replicas), " if shared else "")
                + "lower experts.count or take a machine with more DDR",
            )
        ddr[expert] = address
    router_size = router.weights if router else 0
    largest = max((experts[expert].weights for expert in mine if expert not in pinned), default=0)
    start = router_size + kv_reserve
    held: dict[int, int] = {}
    for expert in mine:
        if expert in pinned:
            held[expert] = start
            start += experts[expert].weights
    room = hbm_capacity - start
    if room < largest:
        raise OutOfMemoryError(
            "HBM",
            where,
            asked=start + largest,
            free=hbm_capacity,
            largest_hole=hbm_capacity,
            hint=f"router {router_size:,} + runtime.kv_reserve {kv_reserve:,}"
            + (f" + runtime.pinned {start - router_size - kv_reserve:,}" if held else "")
            + f" + largest {'other ' if held else ''}expert {largest:,} bytes; "
            + ("pin fewer, " if held else "")
            + "lower runtime.kv_reserve or raise sharding.tensor_parallel",
        )
    return Layout(
        group=group,
        ddr=ddr,
        router=Region(0, router_size),
        kv=Region(router_size, kv_reserve),
        experts=Region(start, room),
        pinned=held,
        shared=shared,
        swap=Region(ddr_capacity - allocator.free, allocator.free),
    )
