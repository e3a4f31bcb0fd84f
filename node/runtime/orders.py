"""The orders of one group: commands numbered in the order in which they are decided, calls to the host, cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from node.dataflow.form import causal_pairs
from node.events import Command, Cut, HostCall, Kind, Order, Tier
from node.runtime.policies import Eviction, Resident
from node.runtime.scheduler import Decision, View
from node.runtime.sharding import Layout, ModelSize
from node.units import Bytes, Picoseconds

CALL_OVERHEADS = ("per_request", "per_batch", "none")


@dataclass(frozen=True)
class Settings:
    """What a group needs to know. By expert, and last by router where one runs: ``sizes`` and ``programs``.

    ``next_expert``: whom the scheduler would serve next, where experts are prefetched.
    ``future``: by expert the numbers of its requests, where the eviction policy is the yardstick that knows them.
    ``router``: the number that stands for the router among the experts; it generates ``router_tokens`` a call.
    """

    scheduler: Callable[[View], Decision]
    eviction: Eviction
    batch: int
    fairness: Picoseconds
    call_overhead: str
    sizes: Sequence[ModelSize]
    programs: Sequence[int]
    router: int | None
    router_tokens: int
    next_expert: Callable[[View], int] | None = None
    future: Sequence[Sequence[int]] = ()


class Orders:
    """Collects what a group wants done; ``take`` hands it over."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout, self._settings = layout, settings
        self._orders: list[Order] = []
        self._next = 0

    def take(self) -> list[Order]:
        """All orders since the last time."""
        orders, self._orders = self._orders, []
        return orders

    def deploy(self) -> None:
        """Home copies to DDR, the router and pinned experts to HBM, before time 0."""
        for expert, address in self._layout.ddr.items():
            self._memory(Kind.LOAD, 0, expert, address, self._settings.sizes[expert].weights, Tier.DDR)
        if self._settings.router is not None:
            region = self._layout.router
            self._memory(Kind.LOAD, 0, self._settings.router, region.start, region.size)
        for expert, address in self._layout.pinned.items():
            self._memory(Kind.LOAD, 0, expert, address, self._settings.sizes[expert].weights)

    def reserve(self, symbol: int, address: int, size: Bytes, now: Picoseconds) -> None:
        """A KV range begins."""
        self._memory(Kind.ALLOCATE, now, symbol, address, size)

    def release(self, symbol: int, address: int, size: Bytes, now: Picoseconds) -> None:
        """A KV range ends."""
        self._memory(Kind.FREE, now, symbol, address, size)

    def activate(self, expert: int, address: int, evicted: Iterable[Resident], now: Picoseconds) -> None:
        """The evicted leave HBM (weights are never written back) and ``expert`` is copied to ``address``."""
        sizes = self._settings.sizes
        for victim in evicted:
            self._memory(Kind.FREE, now, victim.expert, victim.address, sizes[victim.expert].weights)
        self._memory(Kind.ALLOCATE, now, expert, address, sizes[expert].weights)
        self._add(
            Kind.COPY,
            now,
            symbol=expert,
            address=address,
            size=sizes[expert].weights,
            source=self._layout.ddr[expert],
            program=self._settings.programs[expert],
        )

    def call(self, calls: int) -> None:
        """The host spends its fixed cost ``calls`` times."""
        self._orders.append(HostCall(self._layout.group, calls))

    def cut(self) -> None:
        """The running decode ends with the step it is in."""
        self._orders.append(Cut(self._layout.group))

    def prefill(self, expert: int, address: int, lengths: Sequence[int], now: Picoseconds) -> None:
        """One pass over prompts of ``lengths`` tokens."""
        window = self._settings.sizes[expert].window
        self._add(
            Kind.PREFILL,
            now,
            symbol=expert,
            address=address,
            program=self._settings.programs[expert],
            tokens=sum(lengths),
            pairs=sum(causal_pairs(length, window) for length in lengths),
            context=sum(lengths),
            sequences=len(lengths),
        )

    def decode(self, expert: int, address: int, contexts: Sequence[int], steps: int, now: Picoseconds) -> None:
        """Steps of a batch whose next tokens attend to ``contexts`` tokens, themselves among them.

        At most ``steps``; fewer where the attention window of a sequence fills up, for its cost changes there.
        """
        window = self._settings.sizes[expert].window
        if window is not None:
            steps = min([steps, *(window - context for context in contexts if context < window)])
        seen = contexts if window is None else [min(context, window) for context in contexts]
        growing = len(contexts) if window is None else sum(context < window for context in contexts)
        self._add(
            Kind.DECODE,
            now,
            symbol=expert,
            address=address,
            program=self._settings.programs[expert],
            tokens=len(contexts),
            pairs=sum(seen),
            context=sum(seen),
            sequences=len(contexts),
            growth=growing,
            steps=steps,
        )

    def _memory(
        self, kind: Kind, now: Picoseconds, symbol: int, address: int, size: Bytes, tier: Tier = Tier.HBM
    ) -> None:
        self._add(kind, now, tier=tier, symbol=symbol, address=address, size=size)

    def _add(self, kind: Kind, now: Picoseconds, tier: Tier = Tier.HBM, **fields: int) -> None:
        self._orders.append(Command(self._next, self._layout.group, kind, now, tier, **fields))
        self._next += 1
