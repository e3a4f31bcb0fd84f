"""Experts in HBM: their states, their addresses, and who leaves when there is no room."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum

from node.allocator import Allocator
from node.errors import InvariantError
from node.runtime.memories import Known
from node.runtime.policies import Eviction, Resident
from node.runtime.references import References
from node.runtime.sharding import ModelSize, Region
from node.units import Bytes, Picoseconds


class ExpertState(StrEnum):
    """Where an expert is."""

    IN_DDR = "IN_DDR"
    COPYING = "COPYING"
    RESIDENT = "RESIDENT"


MOVES = {
    ExpertState.IN_DDR: (ExpertState.COPYING,),
    ExpertState.COPYING: (ExpertState.RESIDENT,),
    ExpertState.RESIDENT: (ExpertState.IN_DDR,),
}
RESIDENT = ExpertState.RESIDENT
_REMEMBERED = 12


class ExpertCache:
    """The expert region of one group's HBM; ``sizes`` by expert, ``eviction`` picks who leaves.

    ``waiting`` and ``future``: what a policy may know of requests, see ``Known``. ``pinned``: addresses, outside the
    region, of experts that are there from the start and stay, and of which no policy hears. ``references``: all served.
    ``copying``: the expert on its way, one at a time. ``prefetches`` counts those that were sent for before anybody was
    served by them, ``wasted`` those of them that were evicted before anybody was; ``unused`` are not used so far.
    """

    def __init__(
        self,
        region: Region,
        sizes: Sequence[ModelSize],
        eviction: Eviction,
        waiting: Callable[[int], int] = lambda _expert: 0,
        future: Sequence[deque[int]] = (),
        pinned: Mapping[int, int] | None = None,
    ) -> None:
        self._region, self._allocator = region, Allocator(region.start, region.size)
        self._sizes = sizes
        known = Known([size.weights for size in sizes], region.size, waiting, future)
        self._choose, self._memory = eviction(known)
        self.references = References()
        self._residents: dict[int, Resident] = {}
        self._pinned = dict(pinned or {})
        self._states = dict.fromkeys(self._pinned, ExpertState.RESIDENT)
        self._history: dict[int, deque[tuple[ExpertState, Picoseconds]]] = {}
        self.copying: int | None = None
        self.prefetches = self.wasted = 0
        self.unused: set[int] = set()

    def state(self, expert: int) -> ExpertState:
        """Where ``expert`` is."""
        return self._states.get(expert, ExpertState.IN_DDR)

    def resident(self, expert: int) -> bool:
        """Whether ``expert`` can be run."""
        return self._states.get(expert) is RESIDENT

    def residents(self) -> tuple[int, ...]:
        """The experts in HBM, pinned ones first, then in the order in which they came."""
        return (*self._pinned, *self._residents)

    def here(self, expert: int) -> bool:
        """Whether ``expert`` is in HBM or on its way."""
        return self.state(expert) is not ExpertState.IN_DDR

    def size(self, expert: int) -> Bytes:
        """Bytes of HBM that ``expert`` takes."""
        return self._sizes[expert].weights

    def candidates(self, kept: Collection[int] = ()) -> list[Resident]:
        """Those who may be evicted, in the order in which they came, but for those ``kept``."""
        states = self._states
        there = [one for expert, one in self._residents.items() if states[expert] is RESIDENT]
        return [one for one in there if one.expert not in kept] if kept else there

    def room(self, kept: Collection[int]) -> Bytes:
        """The largest piece of the region that is free once all but ``kept`` have left."""
        start, largest = self._region.start, 0
        for address, expert in sorted((one.address, one.expert) for one in self._residents.values()):
            if expert in kept:
                largest = max(largest, address - start)
                start = address + self._sizes[expert].weights
        return max(largest, self._region.start + self._region.size - start)

    def address(self, expert: int) -> int:
        """The HBM address of an expert that is there or being copied."""
        return self._pinned[expert] if expert in self._pinned else self._residents[expert].address

    def prefetch(self, expert: int, now: Picoseconds, kept: Collection[int]) -> tuple[tuple[Resident, ...], int] | None:
        """``begin`` for an expert that nobody is served by yet; None where those ``kept`` leave it no room."""
        if self._sizes[expert].weights > self.room(kept):
            return None
        self.prefetches += 1
        self.unused.add(expert)
        return self.begin(expert, now, kept)

    def begin(self, expert: int, now: Picoseconds, kept: Collection[int] = ()) -> tuple[tuple[Resident, ...], int]:
        """Start to activate ``expert``: those evicted for it, none of them ``kept``, and its address."""
        self._move(expert, ExpertState.COPYING, now)
        self.copying = expert
        self._memory.wanted(expert)
        evicted = []
        size = self._sizes[expert].weights
        while (address := self._allocator.allocate(size)) is None:
            candidates = self.candidates(kept)
            if not candidates:
                region = f"an expert region with {len(kept)} experts that stay" if kept else "an empty expert region"
                raise InvariantError(f"expert {expert}: {size:,} bytes do not fit {region}")
            victim = self._choose(candidates)
            self._move(victim.expert, ExpertState.IN_DDR, now)
            self._memory.left(victim.expert)
            self._allocator.release(victim.address)
            del self._residents[victim.expert]
            self.wasted += victim.expert in self.unused
            self.unused.discard(victim.expert)
            evicted.append(victim)
        self._residents[expert] = Resident(expert, address, now, 0)
        self._memory.came(expert)
        return tuple(evicted), address

    def leave(self, expert: int, now: Picoseconds) -> int | None:
        """``expert`` is not needed here any more: where it was in HBM, if it was."""
        if not self.here(expert):
            return None
        gone = self._residents.pop(expert)
        self._move(expert, ExpertState.IN_DDR, now)
        self._memory.left(expert)
        self._allocator.release(gone.address)
        self.unused.discard(expert)
        return gone.address

    def arrived(self, expert: int, now: Picoseconds) -> None:
        """The copy of ``expert`` is complete."""
        self._move(expert, ExpertState.RESIDENT, now)
        resident = self._residents[expert]
        resident.came = resident.last_used = now  # or a prefetched expert would be the first to leave
        self.copying = None

    def use(self, expert: int, now: Picoseconds, requests: int) -> int:
        """``expert`` serves ``requests`` more at ``now`` (0: it goes on with those it serves); its ``address``."""
        self.unused.discard(expert)
        if requests:
            self.references.add(expert, requests)
        resident = self._residents.get(expert)
        if resident is None:
            return self._pinned[expert]
        resident.last_used = now
        if requests:
            resident.uses += requests
            self._memory.used(expert, requests)
        return resident.address

    def _move(self, expert: int, to: ExpertState, now: Picoseconds) -> None:
        history = self._history.get(expert)
        if history is None:
            history = self._history[expert] = deque(maxlen=_REMEMBERED)
        if to not in MOVES[self._states.get(expert, ExpertState.IN_DDR)]:
            before = "; ".join(f"{state.value} at {time:,} ps" for state, time in history)
            raise InvariantError(
                f"expert {expert}: {self.state(expert).value} -> {to.value} at {now:,} ps is no legal move; "
                f"before: {before or 'nothing'}"
            )
        history.append((to, now))
        self._states[expert] = to
