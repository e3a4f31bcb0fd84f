"""What a group holds in HBM, experts and KV ranges; every change is an order to its sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from node.runtime.expert_cache import ExpertCache
from node.runtime.kv_cache import KvCache
from node.runtime.orders import Orders, Settings
from node.runtime.sharding import Layout
from node.units import Bytes, Picoseconds


class GroupMemory:
    """Decides addresses in the regions of ``layout`` and tells ``orders``; ``activations`` are copies by expert.

    ``waiting``: how many requests wait for an expert now.
    """

    def __init__(self, layout: Layout, settings: Settings, orders: Orders, waiting: Callable[[int], int]) -> None:
        known = (waiting, settings.future)
        self.cache = ExpertCache(layout.experts, settings.sizes, settings.eviction, *known, layout.pinned)
        self._kv = KvCache(layout.kv, first_symbol=len(settings.sizes))
        self.activations: Counter[int] = Counter()
        self._router, self._router_address = settings.router, layout.router.start
        self._orders = orders

    def reserve(self, size: Bytes, now: Picoseconds) -> int | None:
        """A KV range of ``size`` bytes: its symbol, or None where there is no room now."""
        reserved = self._kv.reserve(size)
        if reserved is None:
            return None
        self._orders.reserve(*reserved, size, now)
        return reserved[0]

    def release(self, symbol: int, now: Picoseconds) -> None:
        """End a KV range."""
        self._orders.release(symbol, *self._kv.release(symbol), now)

    def activate(self, expert: int, now: Picoseconds) -> None:
        """Evict for ``expert`` and begin its copy; where another one is under way, do so when that has ended."""
        if self.cache.copying is None:
            evicted, address = self.cache.begin(expert, now)
            self.activations[expert] += 1
            self._orders.activate(expert, address, evicted, now)

    def prefetch(self, expert: int, in_use: Collection[int], now: Picoseconds) -> None:
        """Begin the copy of ``expert`` if it is not there, and if nobody ``in_use`` must leave for it."""
        if self.cache.resident(expert):
            return
        room = self.cache.prefetch(expert, now, in_use)
        if room is not None:
            evicted, address = room
            self.activations[expert] += 1
            self._orders.activate(expert, address, evicted, now)

    def use(self, expert: int, now: Picoseconds, requests: int) -> int:
        """The address of the weights of an expert (which now serves ``requests`` more) or of the router."""
        if expert == self._router:
            return self._router_address
        self.cache.use(expert, now, requests)
        return self.cache.address(expert)
