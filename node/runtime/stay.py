"""Who stays in HBM for now, so that experts do not push each other out over and over.

An expert stays until it has been there for ``min_residency``, whoever waits; and, while requests wait for it, until it
has served ``drain`` of them since it came, unless somebody has waited longer than is fair for an expert that needs the
room. Schedulers leave out the experts that cannot come for want of room.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from functools import cached_property
from typing import NamedTuple

from node.runtime.expert_cache import ExpertCache
from node.runtime.service import Numbers
from node.runtime.waiting import Waiting
from node.units import Bytes, Picoseconds


class Stay(NamedTuple):
    """How long experts stay: ``drain`` is in requests; ``fairness``: the scheduler's."""

    min_residency: Picoseconds = 0
    drain: int = 0
    fairness: Picoseconds = 0


class Stays:
    """Who stays in one group; ``since`` when (ps) requests count as waiting, by key."""

    def __init__(self, stay: Stay, cache: ExpertCache, waiting: Waiting, since: Numbers) -> None:
        self._min_residency, self._drain, self._fairness = stay
        self._bounded = stay.min_residency > 0 or stay.drain > 0
        self._cache, self._waiting, self._since = cache, waiting, since

    def blocked(self, now: Picoseconds, in_use: Collection[int] = ()) -> Container[int]:
        """The experts that cannot come to HBM at ``now`` while those ``in_use`` stay as well, and those themselves."""
        return Blocked(self, now, in_use) if self._bounded else in_use

    def kept(self, expert: int, now: Picoseconds, in_use: Collection[int] = ()) -> Collection[int]:
        """Who stays when ``expert`` comes: all who have to, or the young alone where that leaves no room."""
        if not self._bounded:
            return in_use
        young = self.young(now, in_use)
        kept = young | self.undrained()
        return kept if self._cache.size(expert) <= self._cache.room(kept) else young

    def young(self, now: Picoseconds, in_use: Collection[int] = ()) -> set[int]:
        """Those who have not been there long enough, those ``in_use``, and the one that is on its way."""
        held = {one.expert for one in self._cache.candidates() if one.came + self._min_residency > now}
        return held.union(in_use, () if self._cache.copying is None else (self._cache.copying,))

    def undrained(self) -> set[int]:
        """Those who are waited for and have not served enough since they came."""
        of = self._waiting.of
        return {one.expert for one in self._cache.candidates() if one.uses < self._drain and of(one.expert)}

    def of_age(self, now: Picoseconds) -> Picoseconds | None:
        """When the next one has been there long enough; None where all have."""
        if not self._min_residency:
            return None
        ages = [one.came + self._min_residency for one in self._cache.candidates()]
        return min([age for age in ages if age > now], default=None)

    def overdue(self, expert: int, now: Picoseconds) -> bool:
        """Whether somebody has waited for ``expert`` longer than is fair."""
        return now - self._since[self._waiting.first(expert)] > self._fairness

    def size(self, expert: int) -> Bytes:
        """The room that ``expert`` needs: none where it is in HBM or on its way."""
        return 0 if self._cache.here(expert) else self._cache.size(expert)

    def room(self, kept: Collection[int]) -> Bytes:
        """The largest piece of HBM that there is once all but ``kept`` have left."""
        return self._cache.room(kept)


class Blocked(Container[int]):
    """See ``Stays.blocked``; asked of experts that are waited for."""

    def __init__(self, stays: Stays, now: Picoseconds, in_use: Collection[int]) -> None:
        self._stays, self._now, self._in_use = stays, now, in_use

    def __contains__(self, expert: object) -> bool:
        assert isinstance(expert, int)
        if expert in self._in_use:
            return True
        size = self._stays.size(expert)
        if size <= self._room:
            return False
        return size > self._room_of_the_old or not self._stays.overdue(expert, self._now)

    @cached_property
    def _young(self) -> set[int]:
        return self._stays.young(self._now, self._in_use)

    @cached_property
    def _room(self) -> Bytes:
        return self._stays.room(self._young | self._stays.undrained())

    @cached_property
    def _room_of_the_old(self) -> Bytes:
        return self._stays.room(self._young)
