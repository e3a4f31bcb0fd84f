"""A lane whose group mixes prompts with answers in one step, or has requests make room for others."""

from __future__ import annotations

from node.events import Tier
from node.hardware.host import Host
from node.hardware.sockets import Sockets
from node.lane import HandOver, Lane
from node.runtime.continuous import ContinuousGroup, Joining
from node.runtime.ledger import Ledger
from node.runtime.task import AGAIN, MIXED, SWAP_IN, SWAP_OUT, Task
from node.units import NEVER, Picoseconds

_SWAPS = (SWAP_OUT, SWAP_IN)
_OWN = (*_SWAPS, MIXED, AGAIN)


class ContinuousLane(Lane):
    """See ``Lane``. Steps of prompts are of the decode clock, too, where somebody decodes in them."""

    def __init__(
        self, group: ContinuousGroup, sockets: Sockets, host: Host, ledger: Ledger, hand_over: HandOver
    ) -> None:
        super().__init__(group, sockets, host, ledger, hand_over)
        self._group = group
        self._absent: dict[int, Picoseconds] = {}  # who has a token and made room: the decode clock then

    def _decide(self, now: Picoseconds) -> None:
        super()._decide(now)
        self._absent.update(dict.fromkeys(self._group.absent, self._clock))
        self._group.absent.clear()

    def _begin(self, stage: int, task: Task, now: Picoseconds) -> Picoseconds:
        if stage in _SWAPS:
            return NEVER if self._group.cache.copying is not None else self._swap(stage, task, now)
        if stage not in (MIXED, AGAIN):
            return super()._begin(stage, task, now)
        if stage == AGAIN:
            return self._pass(self._group.prefill_step(task), task.expert, 0, now)
        return self._pass(self._group.mixed_step(task, now), task.expert, len(task.who), now)

    def _swap(self, stage: int, task: Task, now: Picoseconds) -> Picoseconds:
        """KV cache of all of ``task`` moves, one after another: when the last has."""
        end = self._host.grant(now)
        for request in task.who:
            start, end = end, self.sockets.swap(end, self._group.swap_bytes(request))
            self._group.swap(request, Tier.DDR if stage == SWAP_OUT else Tier.HBM, start, end)
        self._host.release(end)
        return end

    def _complete(self, stage: int, task: Task, now: Picoseconds) -> None:
        if stage not in _OWN:
            super()._complete(stage, task, now)
            return
        if self._arrival_at <= now:
            self._welcome(now)
        if stage == SWAP_OUT:
            self._group.left(task.who, now)
        elif stage == SWAP_IN:
            self._group.back(now)
            self._returned(task.who[0])
        elif stage == AGAIN:
            self._ended_now(self._group.join(task, now), now)
            self._returned(task.who[0])
        else:
            self._clock += now - self._began
            entering, ended = self._group.mixed(now)
            self._first_tokens(entering, now)
            self._ended_now(ended, now)

    def _first_tokens(self, entering: list[Joining], now: Picoseconds) -> None:
        numbers: dict[int, int] = {}
        for one in entering:
            task = one.task
            if task is None:
                self._returned(one.request)
                continue
            if id(task) not in numbers:
                noted = (self.group.layout.group, task.started, task.copied, task.called, now, self._clock)
                numbers[id(task)] = self._ledger.task(noted)
            self._ledger.served[one.request] = numbers[id(task)]

    def _returned(self, request: int) -> None:
        """One decodes again: the clock went on without it."""
        self._ledger.missed[request] = self._ledger.missed.get(request, 0) + self._clock - self._absent.pop(request)

    def _prefetch(self, now: Picoseconds) -> None:
        if self._stage not in _SWAPS:  # or DMA is at something
            super()._prefetch(now)

    def _copied(self, now: Picoseconds) -> None:
        super()._copied(now)
        if self._task is not None and self._stage in _SWAPS and self._rest_at == NEVER:
            self._rest_at = self._swap(self._stage, self._task, now)
