"""What a group holds in HBM, experts and KV ranges; every change is a command to its sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from node.allocator import Allocator
from node.events import Kind, Tier
from node.runtime.expert_cache import ExpertCache
from node.runtime.kv_cache import KvCache
from node.runtime.settings import Settings
from node.runtime.sharding import Layout
from node.stream import Stream
from node.units import Bytes, Picoseconds


class GroupMemory:
    """Decides addresses in the regions of ``layout`` and tells ``stream``; ``activations`` are copies by expert.

    ``waiting``: how many requests wait for an expert now.
    """

    def __init__(self, layout: Layout, settings: Settings, stream: Stream, waiting: Callable[[int], int]) -> None:
        known = (waiting, settings.future)
        self.cache = ExpertCache(layout.experts, settings.sizes, settings.eviction, *known, layout.pinned)
        self.activations: Counter[int] = Counter()
        self.kv = KvCache(
            layout.kv, len(settings.sizes), stream, bare=not all(size.kv_token for size in settings.sizes)
        )
        self.homes, self.had = dict(layout.ddr), set(layout.ddr)  # addresses in DDR; who ever was there
        self.moved: Bytes = 0  # into DDR from other groups, or from there to them, on each socket
        self.ddr, self._holes = Allocator(layout.swap.start, layout.swap.size), dict[Bytes, list[int]]()
        self._layout, self._settings = layout, settings
        self._stream = stream

    def deploy(self) -> None:
        """Home copies to DDR, the router and pinned experts to HBM, before time 0."""
        for expert, address in self._layout.ddr.items():
            self._note(Kind.LOAD, 0, expert, address, self._settings.sizes[expert].weights, Tier.DDR)
        region = self._layout.router
        if self._settings.router is not None and region.size:
            self._note(Kind.LOAD, 0, self._settings.router, region.start, region.size)
        for expert, address in self._layout.pinned.items():
            self._note(Kind.LOAD, 0, expert, address, self._settings.sizes[expert].weights)

    def activate(
        self, expert: int, now: Picoseconds, kept: Collection[int], *, ahead: bool = False
    ) -> tuple[int, ...] | None:
        """Evict for ``expert`` (weights are never written back), but none of ``kept``, and give it room: who left.

        ``ahead``: it is a prefetch; None where it has no room then.
        """
        room = (self.cache.prefetch if ahead else self.cache.begin)(expert, now, kept)
        if room is None:
            return None
        evicted, address = room
        self.activations[expert] += 1
        sizes = self._settings.sizes
        for victim in evicted:
            self._note(Kind.FREE, now, victim.expert, victim.address, sizes[victim.expert].weights)
        self._note(Kind.ALLOCATE, now, expert, address, sizes[expert].weights)
        return tuple(victim.expert for victim in evicted)

    def copy(self, expert: int, start: Picoseconds, end: Picoseconds) -> None:
        """The copy of ``expert`` that was given room takes from ``start`` to ``end``."""
        where = self.cache.address(expert), self._settings.sizes[expert].weights, self.homes[expert]
        self._stream.copy(start, expert, where, self._settings.programs[expert], end)

    def home_for(self, expert: int, now: Picoseconds) -> int | None:
        """Give a home copy of an expert room in DDR: its address, or None."""
        size = self._settings.sizes[expert].weights
        holes = self._holes.get(size)
        address = holes.pop() if holes else self.ddr.allocate(size)
        if address is not None:
            self._note(Kind.ALLOCATE, now, expert, address, size, Tier.DDR)
        return address

    def give(self, expert: int, times: tuple[Picoseconds, Picoseconds, Picoseconds]) -> bool:
        """Send the home copy of an expert to another group, and forget it; whether it was in HBM."""
        now, start, end = times
        size, address = self._settings.sizes[expert].weights, self.homes.pop(expert)
        there = self.cache.leave(expert, now)
        if there is not None:
            self._note(Kind.FREE, now, expert, there, size)
        self._stream.move(Kind.SEND, start, (expert, address, size), self._settings.programs[expert], end)
        self._note(Kind.FREE, end, expert, address, size, Tier.DDR)
        self._holes.setdefault(size, []).append(address)
        self.moved += size
        return there is not None

    def take(self, expert: int, address: int, times: tuple[Picoseconds, Picoseconds]) -> None:
        """Receive the home copy of an expert from another group."""
        start, end = times
        size = self._settings.sizes[expert].weights
        self._stream.move(Kind.RECEIVE, start, (expert, address, size), self._settings.programs[expert], end)
        self.homes[expert] = address
        self.had.add(expert)
        self.moved += size

    def use(self, expert: int, now: Picoseconds, requests: int) -> int:
        """The address of the weights of an expert (which now serves ``requests`` more) or of the router."""
        if expert == self._settings.router:
            return self._layout.router.start
        return self.cache.use(expert, now, requests)

    def _note(
        self, kind: Kind, now: Picoseconds, symbol: int, address: int, size: Bytes, tier: Tier = Tier.HBM
    ) -> None:
        self._stream.memory(kind, now, tier, symbol, address, size)
