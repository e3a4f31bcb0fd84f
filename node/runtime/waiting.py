"""Who waits for which expert, kept so that a scheduler finds the oldest and the most wanted without a search.

Both are heaps whose entries are checked when they come up: one that no longer says how things are is dropped. A change
is one entry, so that work grows with requests, not with experts times decisions.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Container, Iterable
from heapq import heappop, heappush

Entry = tuple[int, ...]  # what it is sorted by, then the expert


class Waiting:
    """Queues of request numbers by expert, in order of arrival, none of them empty.

    ``resident``: the experts in HBM at first; who changes that says so with ``changed``. A queue counts as no longer
    than ``batch``, for so many can be served at once.
    """

    def __init__(self, batch: int, resident: Iterable[int]) -> None:
        self.queues: dict[int, deque[int]] = {}
        self.count = 0
        self._batch, self._resident = batch, set(resident)
        self._by_age: list[Entry] = []  # first request, expert
        self._by_wish: list[Entry] = []  # -how many, not resident, first request, expert

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

    def oldest(self, without: Container[int] = ()) -> int | None:
        """The expert of the request that has waited longest, those ``without`` left out; None where nobody waits."""
        return self._first(self._by_age, lambda expert, queue: (queue[0], expert), without)

    def most_wanted(self, without: Container[int] = ()) -> int | None:
        """The expert that most wait for; of equals a resident one, then the one waited for longest."""
        return self._first(self._by_wish, self._wish, without)

    def _first(self, heap: list[Entry], now: Callable[[int, deque[int]], Entry], without: Container[int]) -> int | None:
        """The expert, last in its entry, of the least one that says how things are ``now``; others are dropped."""
        aside, found = set[Entry](), None
        while heap:
            entry = heap[0]
            expert = entry[-1]
            queue = self.queues.get(expert)
            if queue is not None and entry == now(expert, queue):
                if expert not in without:
                    found = expert
                    break
                aside.add(entry)
            heappop(heap)
        for entry in aside:
            heappush(heap, entry)
        return found

    def _wish(self, expert: int, queue: deque[int]) -> Entry:
        return -min(len(queue), self._batch), expert not in self._resident, queue[0], expert
