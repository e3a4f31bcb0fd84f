"""How requests come to groups: through which door, to which queues, and who is woken for them.

An expert that is at home in several groups has one queue. Whoever of them comes free takes from its front: with k
groups, batches of one and nothing to copy that is the queue M/D/k.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from node.lane import Lane
from node.runtime.shared_waiting import SharedWaiting
from node.units import Picoseconds


class Exchange:
    """Hands requests to the groups that have their expert; ``expert`` is by request, ``homes`` by expert.

    ``asked``: by expert, how many it has handed over since somebody last cleared it.
    """

    def __init__(self, lanes: Sequence[Lane], homes: Mapping[int, list[int]], expert: Sequence[int]) -> None:
        self.homes, self.asked = homes, Counter[int]()
        self._lanes, self._expert = lanes, expert
        for number, groups in homes.items():
            queues = [lanes[group].group.waiting for group in groups]
            for queue in queues:
                if isinstance(queue, SharedWaiting):
                    others = [other for other in queues if other is not queue and isinstance(other, SharedWaiting)]
                    queue.beside[number] = others

    def hand_over(self, requests: Sequence[int], now: Picoseconds) -> None:
        """All of them to their queues, then groups decide anew: first idle ones that are woken for a shared queue.

        Then, by number, all others that have one of the experts, those that decode and may have somebody join.
        """
        received: dict[int, list[int]] = {}
        experts: dict[int, None] = {}  # in the order in which they are asked for
        for request in requests:
            expert = self._expert[request]
            self.asked[expert] += 1
            experts[expert] = None
            received.setdefault(self.homes[expert][0], []).append(request)
        for group, mine in received.items():
            self._lanes[group].group.receive(mine)
            for request in mine:
                for other in self.homes[self._expert[request]][1:]:
                    self._lanes[other].group.admission.expect((request,))
        for expert in experts:
            self._wake(expert, now)
        for group in sorted({group for expert in experts for group in self.homes[expert]}):
            self._lanes[group].reconsider(now)

    def moved(self, expert: int, target: int) -> None:
        """``expert`` is at home in another group now; those who wait for it go there."""
        (source,) = self.homes[expert]
        self.homes[expert][0] = target
        there = self._lanes[target].group
        there.queue(self._lanes[source].group.leave(expert))

    def _wake(self, expert: int, now: Picoseconds) -> None:
        """Have idle groups take from a shared queue until it is empty, those first that need not copy the expert."""
        groups = self.homes[expert]
        if len(groups) == 1:
            return
        idle = [lane for lane in (self._lanes[group] for group in groups) if lane.idle]
        for lane in sorted(idle, key=lambda lane: not lane.group.cache.resident(expert)):  # of equals by number
            if not lane.group.waiting.of(expert):
                return
            lane.reconsider(now)
