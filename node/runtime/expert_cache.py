"""Experts in HBM: their states, their addresses, and who leaves when there is no room."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum

from node.allocator import Allocator
from node.errors import InvariantError
from node.runtime.policies import Eviction, Resident
from node.runtime.sharding import ModelSize, Region
from node.units import Picoseconds


class ExpertState(Enum):
    """Where an expert is."""

    IN_DDR = "IN_DDR"
    COPYING = "COPYING"
    RESIDENT = "RESIDENT"


MOVES = {
    ExpertState.IN_DDR: (ExpertState.COPYING,),
    ExpertState.COPYING: (ExpertState.RESIDENT,),
    ExpertState.RESIDENT: (ExpertState.IN_DDR,),
}
_REMEMBERED = 12


class ExpertCache:
    """The expert region of one group's HBM; ``sizes`` by expert, ``eviction`` picks who leaves."""

    def __init__(self, region: Region, sizes: Sequence[ModelSize], eviction: Eviction) -> None:
        self._allocator = Allocator(region.start, region.size)
        self._sizes, self._eviction = sizes, eviction
        self._residents: dict[int, Resident] = {}
        self._states: dict[int, ExpertState] = {}
        self._history: dict[int, deque[str]] = {}

    def state(self, expert: int) -> ExpertState:
        """Where ``expert`` is."""
        return self._states.get(expert, ExpertState.IN_DDR)

    def resident(self, expert: int) -> bool:
        """Whether ``expert`` can be run."""
        return self.state(expert) is ExpertState.RESIDENT

    def residents(self) -> tuple[int, ...]:
        """The experts in HBM, in the order in which they came."""
        return tuple(self._residents)

    def address(self, expert: int) -> int:
        """The HBM address of an expert that is there or being copied."""
        return self._residents[expert].address

    def begin(self, expert: int, now: Picoseconds) -> tuple[tuple[Resident, ...], int]:
        """Start to activate ``expert``: those evicted for it, and its address."""
        self._move(expert, ExpertState.COPYING, now)
        evicted = []
        size = self._sizes[expert].weights
        while (address := self._allocator.allocate(size)) is None:
            candidates = [r for r in self._residents.values() if self.resident(r.expert)]
            if not candidates:
                raise InvariantError(f"expert {expert}: {size:,} bytes do not fit an empty expert region")
            victim = self._eviction(candidates)
            self._move(victim.expert, ExpertState.IN_DDR, now)
            self._allocator.release(victim.address)
            del self._residents[victim.expert]
            evicted.append(victim)
        self._residents[expert] = Resident(expert, address, now, 0)
        return tuple(evicted), address

    def arrived(self, expert: int, now: Picoseconds) -> None:
        """The copy of ``expert`` is complete."""
        self._move(expert, ExpertState.RESIDENT, now)

    def use(self, expert: int, now: Picoseconds, requests: int) -> None:
        """``expert`` serves ``requests`` more at ``now``."""
        resident = self._residents[expert]
        resident.last_used = now
        resident.uses += requests

    def _move(self, expert: int, to: ExpertState, now: Picoseconds) -> None:
        history = self._history.setdefault(expert, deque(maxlen=_REMEMBERED))
        if to not in MOVES[self.state(expert)]:
            raise InvariantError(
                f"expert {expert}: {self.state(expert).value} -> {to.value} at {now:,} ps is no legal move; "
                f"before: {'; '.join(history) or 'nothing'}"
            )
        history.append(f"{to.value} at {now:,} ps")
        self._states[expert] = to
