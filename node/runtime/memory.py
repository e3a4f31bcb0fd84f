"""What a group holds in HBM, experts and KV ranges; every change is a command to its sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

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
        self.kv = KvCache(layout.kv, len(settings.sizes), stream)
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
        where = self.cache.address(expert), self._settings.sizes[expert].weights, self._layout.ddr[expert]
        self._stream.copy(start, expert, where, self._settings.programs[expert], end)

    def use(self, expert: int, now: Picoseconds, requests: int) -> int:
        """The address of the weights of an expert (which now serves ``requests`` more) or of the router."""
        if expert == self._settings.router:
            return self._layout.router.start
        self.cache.use(expert, now, requests)
        return self.cache.address(expert)

    def _note(
        self, kind: Kind, now: Picoseconds, symbol: int, address: int, size: Bytes, tier: Tier = Tier.HBM
    ) -> None:
        self._stream.memory(kind, now, tier, symbol, address, size)
