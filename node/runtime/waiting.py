"""Who waits for which expert, kept so that a scheduler finds the oldest and the most wanted without a search.

Both are heaps whose entries are checked when they come up: one that no longer says how things are is dropped. A change
is one entry, so that work grows with requests, not with experts times decisions.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Collection, Iterable
from heapq import heappop, heappush


class Waiting:
    """Queues of request numbers by expert, in order of arrival, none of them empty.

    ``resident``: the experts in HBM at first; who changes that says so with ``changed``. A queue counts as no longer
    than ``batch``, for so many can be served at once.
    """

    def __init__(self, batch: int, resident: Iterable[int]) -> None:
        self.queues: dict[int, deque[int]] = {}
        self.count = 0
        self._batch, self._resident = batch, set(resident)
        self._by_age: list[tuple[int, int]] = []  # first request, expert
        self._by_wish: list[tuple[int, bool, int, int]] = []  # -how many, not resident, first request, expert

    def of(self, expert: int) -> int:
        """How many wait for ``expert``."""
        queue = self.queues.get(expert)
        return 0 if queue is None else len(queue)

    def add(self, expert: int, request: int) -> None:
        """Put a request where its number says: another group may be quicker to route a later one."""
        queue = self.queues.get(expert)
        self.count += 1
        if queue is None:
            self.queues[expert] = queue = deque((request,))
            heappush(self._by_age, (request, expert))
        elif request > queue[-1]:
            queue.append(request)
            if len(queue) > self._batch:
                return
        else:
            insort(queue, request)
            if queue[0] == request:
                heappush(self._by_age, (request, expert))
        heappush(self._by_wish, self._wish(expert, queue))

    def take(self, expert: int, count: int) -> None:
        """The first ``count`` who wait for ``expert`` wait no more."""
        queue = self.queues[expert]
        for _ in range(count):
            queue.popleft()
        self.count -= count
        if queue:
            heappush(self._by_age, (queue[0], expert))
            heappush(self._by_wish, self._wish(expert, queue))
        else:
            del self.queues[expert]

    def changed(self, expert: int, *, resident: bool) -> None:
        """``expert`` came to HBM, or left it."""
        (self._resident.add if resident else self._resident.discard)(expert)
        queue = self.queues.get(expert)
        if queue is not None:
            heappush(self._by_wish, self._wish(expert, queue))

    def first(self, expert: int) -> int:
        """The request that has waited longest for ``expert``."""
        return self.queues[expert][0]

    def oldest(self, without: Collection[int] = ()) -> int | None:
        """The expert of the request that has waited longest, those ``without`` left out; None where nobody waits."""
        heap, aside = self._by_age, list[tuple[int, int]]()
        found = None
        while heap:
            request, expert = heap[0]
            queue = self.queues.get(expert)
            if queue is not None and queue[0] == request:
                if expert not in without:
                    found = expert
                    break
                aside.append(heap[0])
            heappop(heap)
        for entry in aside:
            heappush(heap, entry)
        return found

    def most_wanted(self, without: Collection[int] = ()) -> int | None:
        """The expert that most wait for; of equals a resident one, then the one waited for longest."""
        heap, aside = self._by_wish, set[tuple[int, bool, int, int]]()
        found = None
        while heap:
            expert = heap[0][-1]
            queue = self.queues.get(expert)
            if queue is not None and heap[0] == self._wish(expert, queue):
                if expert not in without:
                    found = expert
                    break
                aside.add(heap[0])
            heappop(heap)
        for entry in aside:
            heappush(heap, entry)
        return found

    def _wish(self, expert: int, queue: deque[int]) -> tuple[int, bool, int, int]:
        return -min(len(queue), self._batch), expert not in self._resident, queue[0], expert
