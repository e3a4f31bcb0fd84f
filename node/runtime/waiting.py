"""Who waits for which expert, kept so that a scheduler finds the oldest and the most wanted without a search.

Both are heaps whose entries are checked when they come up: one that no longer says how things are is dropped. A change
is one entry, so that work grows with requests, not with experts times decisions.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Container, Iterable
from heapq import heapify, heappop, heappush, heapreplace

Entry = tuple[int, ...]  # what it is sorted by, then the expert
_MOST_STALE = 4  # entries of a heap for each queue, before those are dropped that no longer say how things are
_FEW = 64


def put(queue: deque[int], keys: Iterable[int]) -> None:
    """Put keys into a queue of them, each where it belongs."""
    for key in keys:
        if not queue or key > queue[-1]:
            queue.append(key)
        else:
            insort(queue, key)


def drop(queue: deque[int], key: int) -> bool:
    """Take a key out of a queue; False where it is not there."""
    place = bisect_left(queue, key)
    if place == len(queue) or queue[place] != key:
        return False
    del queue[place]
    return True


class Waiting:
    """Queues of requests by expert, none of them empty: of their keys, in the order in which they are to be served.

    ``resident``: the experts in HBM at first; who changes that says so with ``changed``. A queue counts as no longer
    than ``batch``, for so many can be served at once.
    """

    def __init__(self, batch: int, resident: Iterable[int]) -> None:
        self.queues: dict[int, deque[int]] = {}
        self.count = 0
        self._batch, self._resident = batch, set(resident)
        self._by_age: list[Entry] = []  # first key, expert
        self._by_wish: list[Entry] = []  # -how many, not resident, first key, expert

    def of(self, expert: int) -> int:
        """How many wait for ``expert``."""
        queue = self.queues.get(expert)
        return 0 if queue is None else len(queue)

    def add(self, expert: int, key: int) -> None:
        """Put a request where its key says: another group may be quicker to route a later one."""
        queue = self.queues.get(expert)
        self.count += 1
        if queue is None:
            self.queues[expert] = queue = deque((key,))
            heappush(self._by_age, (key, expert))
        elif key > queue[-1]:
            queue.append(key)
            if len(queue) > self._batch:
                return
        else:
            insort(queue, key)
            if queue[0] == key:
                heappush(self._by_age, (key, expert))
        heappush(self._by_wish, self._wish(expert, queue))

    def extend(self, wishes: Iterable[tuple[int, int]]) -> None:
        """``add`` for each expert and key."""
        queues, batch = self.queues, self._batch
        for expert, key in wishes:
            queue = queues.get(expert)
            if queue is not None and len(queue) >= batch and key > queue[-1]:  # which no heap can tell
                queue.append(key)
                self.count += 1
            else:
                self.add(expert, key)

    def take(self, expert: int, count: int) -> None:
        """The first ``count`` who wait for ``expert`` wait no more."""
        queue = self.queues[expert]
        for _ in range(count):
            queue.popleft()
        self._left(expert, queue, count)

    def remove(self, expert: int, key: int) -> bool:
        """One who waits for ``expert`` waits no more; False where it did not wait."""
        queue = self.queues.get(expert)
        if queue is None or not drop(queue, key):
            return False
        self._left(expert, queue, 1)
        return True

    def _left(self, expert: int, queue: deque[int], count: int) -> None:
        """So many left a queue."""
        self.count -= count
        if queue:
            by_age, by_wish = self._by_age, self._by_wish
            (heapreplace if by_age and by_age[0][-1] == expert else heappush)(by_age, (queue[0], expert))
            wish = self._wish(expert, queue)
            (heapreplace if by_wish and by_wish[0][-1] == expert else heappush)(by_wish, wish)
            self._tidy()
        else:
            del self.queues[expert]

    def _tidy(self) -> None:
        """Nobody may look at a heap for long: keep it as small as there are queues."""
        most = _MOST_STALE * len(self.queues) + _FEW
        if len(self._by_age) > most:
            self._by_age = [(queue[0], expert) for expert, queue in self.queues.items()]
            heapify(self._by_age)
        if len(self._by_wish) > most:
            self._by_wish = [self._wish(expert, queue) for expert, queue in self.queues.items()]
            heapify(self._by_wish)

    def changed(self, expert: int, *, resident: bool) -> None:
        """``expert`` came to HBM, or left it."""
        (self._resident.add if resident else self._resident.discard)(expert)
        queue = self.queues.get(expert)
        if queue is not None:
            heappush(self._by_wish, self._wish(expert, queue))

    def first(self, expert: int) -> int:
        """The key of the first who waits for ``expert``."""
        return self.queues[expert][0]

    def oldest(self, without: Container[int] = ()) -> int | None:
        """The expert that the first of all waits for, those ``without`` left out; None where nobody waits."""
        if self._by_age:
            key, expert = self._by_age[0]
            queue = self.queues.get(expert)
            if queue is not None and queue[0] == key and expert not in without:
                return expert
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
