"""Who waits, where an expert is at home in several groups: one queue of it, of which each of them knows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heappush

from node.runtime.waiting import Waiting


class SharedWaiting(Waiting):
    """``Waiting`` of a group. ``beside``: by expert, that of every other group that has it; its queue is theirs, too.

    Whoever puts somebody into such a queue or takes from its front, all see it at once: so nobody is served twice, and
    an expert's requests start in the order of their keys, whichever groups serve them.
    """

    def __init__(self, batch: int, resident: Iterable[int]) -> None:
        super().__init__(batch, resident)
        self.beside: dict[int, list[SharedWaiting]] = {}

    def add(self, expert: int, key: int) -> None:
        """See ``Waiting``."""
        super().add(expert, key)
        queue = self.queues[expert]
        for other in self.beside.get(expert, ()):
            other._joined(expert, queue, key)

    def extend(self, wishes: Iterable[tuple[int, int]]) -> None:
        """See ``Waiting``."""
        for expert, key in wishes:
            self.add(expert, key)

    def _left(self, expert: int, queue: deque[int], count: int) -> None:
        """See ``Waiting``."""
        super()._left(expert, queue, count)
        for other in self.beside.get(expert, ()):
            super(SharedWaiting, other)._left(expert, queue, count)

    def _joined(self, expert: int, queue: deque[int], key: int) -> None:
        self.queues[expert] = queue
        self.count += 1
        first = queue[0] == key
        if first:
            heappush(self._by_age, (key, expert))
        if first or len(queue) <= self._batch:
            heappush(self._by_wish, self._wish(expert, queue))
        self._tidy()
