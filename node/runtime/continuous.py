"""A group whose steps may mix tokens of prompts with those of answers, and whose KV cache may be in pages.

With ``prefill_chunk`` a step has so many tokens at most: one of each answer that is under way, and of the prompts that
have joined the batch, in order, as many as there is room for. With ``kv_block`` a request has pages for what it has,
not for what it may come to; where they run out the last in order makes room, and comes back once there is room until
the next answer ends. Until then nobody joins the batch.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from node.dataflow.form import causal_pairs
from node.errors import InvariantError
from node.events import Kind, Tier
from node.runtime.group import KV, LAST, OFFSET, REQUEST, Group, Running
from node.runtime.paging import Paging
from node.runtime.queues import Known
from node.runtime.scheduler import DECODE, Decision, Serve
from node.runtime.settings import Settings
from node.runtime.sharding import Layout
from node.runtime.steps import Step
from node.runtime.task import AGAIN, MIXED, NOBODY, SWAP_IN, SWAP_OUT, Task
from node.stream import Perform, Range
from node.units import Bytes, Picoseconds

IN_PAGES: Range = (-1, 0, 0)  # in place of a request's one range


class Joining:
    """A prompt on its way into the batch: ``done`` of ``length`` tokens; ``task`` began it, if it has no token yet."""

    __slots__ = ("done", "kv", "length", "request", "task")

    def __init__(self, request: int, length: int, kv: Range, task: Task | None) -> None:
        self.request, self.length, self.kv, self.task = request, length, kv, task
        self.done = 0


class Away(NamedTuple):
    """Who made room, by key: ``joining`` where the prompt has to be computed (again); else where its KV cache is.

    Then ``left`` steps and the tokens that its next step attends to are as they were.
    """

    key: int
    request: int
    joining: Joining | None
    swapped: Range = IN_PAGES
    left: int = 0
    context: int = 0


class ContinuousGroup(Group):
    """See above. ``preemptions``, and what they cost: ``recomputed`` tokens, bytes ``swapped`` of each socket."""

    def __init__(self, layout: Layout, settings: Settings, known: Known, perform: Perform | None = None) -> None:
        super().__init__(layout, settings, known, perform)
        self.absent: list[int] = []  # those of ``away`` who have a token
        self._joining: list[Joining] = []
        self._parts: list[tuple[Joining, int]] = []  # of the mixed step under way, and their tokens
        self._away: list[Away] = []
        self._swap = self.memory.ddr
        self._held: dict[int, list[Range]] = {}
        self._paging: Paging | None = None
        self._steps_granted = 0
        if settings.kv_block:
            self._paging = Paging(layout.kv, settings.sizes, settings.kv_block, len(settings.sizes), self.stream)

    def next(self, now: Picoseconds) -> Decision:
        """See ``Group``."""
        decision = super().next(now)
        return DECODE if self._away and isinstance(decision, Serve) else decision

    def decide(self, now: Picoseconds) -> Task | None:
        """See ``Group``."""
        return self._come_back(now) or super().decide(now)

    # KV cache

    def _reserve(self, who: Sequence[int], now: Picoseconds) -> list[Range]:
        if self._away:
            return []
        if self._paging is None:
            return super()._reserve(who, now)
        room = len(self._paging.free) - (self._wanted(1) if self.settings.prefill_chunk else 0)
        counts: list[int] = []
        for request in who:
            count = self._paging.pages(self._known.expert[request], self._known.input_tokens[request])
            if sum(counts) + count > room:
                break
            counts.append(count)
        pages = iter(self._paging.take(sum(counts), now))
        for request, count in zip(who, counts, strict=False):
            self._held[request] = [next(pages) for _ in range(count)]
        return [IN_PAGES] * len(counts)

    def _reserve_for_router(self, router: int, lengths: Sequence[int], now: Picoseconds) -> list[Range]:
        if self._paging is None:
            return super()._reserve_for_router(router, lengths, now)
        count = sum(self._paging.pages(router, length) for length in lengths)
        return self._paging.take(count, now) if count <= len(self._paging.free) else []

    def release(self, held: Sequence[Range], now: Picoseconds) -> None:
        """See ``Group``."""
        (self.memory.kv if self._paging is None else self._paging).release(held, now)

    def _release(self, ended: Sequence[Running], now: Picoseconds) -> None:
        if self._paging is None:
            super()._release(ended, now)
        else:
            self._paging.release([*chain.from_iterable(self._held.pop(one[REQUEST]) for one in ended)], now)

    def _short(self, one: Running, steps: int) -> int:
        """How many pages a running request needs beyond its own to do ``steps`` more; below 0: has too many."""
        assert self._paging is not None
        tokens = self.steps + one[OFFSET] + steps - 1
        return self._paging.pages(self._known.expert[one[REQUEST]], tokens) - len(self._held[one[REQUEST]])

    def _wanted(self, steps: int) -> int:
        return sum(max(0, self._short(one, steps)) for one in self.running)

    def _grow(self, steps: int, now: Picoseconds) -> None:
        """Take the pages for ``steps`` of the running batch."""
        assert self._paging is not None
        for one in self.running:
            self._held[one[REQUEST]] += self._paging.take(max(0, self._short(one, steps)), now)

    # The batch

    def _serve(self, serve: Serve, now: Picoseconds) -> Task | None:
        task = super()._serve(serve, now)
        if task is not None and self.settings.prefill_chunk:
            task.stages[0] = MIXED
        return task

    def _decode(self, now: Picoseconds) -> Task:
        assert self.active is not None
        if self._paging is not None and (leaving := self._make_room(self._paging, now)):
            return Task([SWAP_OUT], self.active, (leaving, ()), ())
        if self._joining:
            return Task([MIXED], self.active, NOBODY, ())
        task = super()._decode(now)
        if self._paging is not None:
            self._steps_granted = self._most_steps(len(self._paging.free))
            self._grow(self._steps_granted, now)
        return task

    def _most_steps(self, free: int) -> int:
        """How many steps the running batch does until somebody ends or there are no more pages."""
        low, high = 1, self.running[0][LAST] - self.steps
        if self._wanted(high) <= free:
            return high
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._wanted(middle) <= free else (low, middle)
        return low

    def decode_step(self, task: Task) -> Step:
        """See ``Group``."""
        step = super().decode_step(task)
        return step if self._paging is None else (*step[:5], min(step[5], self._steps_granted))

    def stepped(self, steps: int, now: Picoseconds) -> list[Running]:
        """See ``Group``; pages of steps that were not done are given back."""
        ended = super().stepped(steps, now)
        if self._paging is not None and steps < self._steps_granted:
            surplus = [self._held[one[REQUEST]].pop() for one in self.running for _ in range(-self._short(one, 0))]
            self._paging.release(surplus, now)
        return ended

    def mixed_step(self, task: Task, now: Picoseconds) -> Step:
        """The step of every answer under way, and tokens of the prompts that ``task`` or others have brought in."""
        self._joining += self._entrants(task)
        if self._paging is not None:
            self._grow(1, now)
        self._parts, step = self._mix(self._joining, self.settings.sizes[task.expert].window)
        return step

    def first_step(self, task: Task) -> Step:
        """See ``Group``: nobody is in the batch yet."""
        if not self.settings.prefill_chunk:
            return super().first_step(task)
        return self._mix(self._entrants(task), self.settings.sizes[task.expert].window)[1]

    def _entrants(self, task: Task) -> list[Joining]:
        return [Joining(*one, task) for one in zip(task.who, task.lengths, task.kv, strict=True)]

    def _mix(self, joining: Sequence[Joining], window: int | None) -> tuple[list[tuple[Joining, int]], Step]:
        """Of whom how many tokens there is room for beside the answers, and the step of both."""
        room = self.settings.prefill_chunk - len(self.running)
        contexts = [self.steps + one[OFFSET] for one in self.running]
        pairs = context = sum(contexts if window is None else [min(one, window) for one in contexts])
        parts: list[tuple[Joining, int]] = []
        for one in joining:
            tokens = min(room, one.length - one.done)
            if not tokens:
                break
            parts.append((one, tokens))
            room -= tokens
            pairs += causal_pairs(one.done + tokens, window) - causal_pairs(one.done, window)
            context += tokens + (one.done if window is None else min(one.done, window - 1))
        sequences = len(contexts) + len(parts)
        return parts, (self.settings.prefill_chunk - room, pairs, context, sequences, 0, 0)

    def mixed(self, now: Picoseconds) -> tuple[list[Joining], list[Running]]:
        """The mixed step is over: who has a token by it that had none before, and whose answer is complete."""
        self.steps += 1
        for one, tokens in self._parts:
            one.done += tokens
        entering = [one for one, _ in self._parts if one.done == one.length]
        self._joining = self._joining[len(entering) :]
        self._enter([(one.request, one.length, one.kv) for one in entering])
        return entering, self._end(now) if self.running else []

    # Who makes room

    def _make_room(self, paging: Paging, now: Picoseconds) -> list[int]:
        """Have the last in order leave until the others can do a step: those whose KV cache has to be moved first."""
        leaving: list[int] = []
        coming = 0  # pages, once they have left
        while self._wanted(1) > len(paging.free) + coming:
            if len(self.running) + len(self._joining) < 2:
                raise InvariantError(f"group {self.layout.group}: no page of KV cache for the only one who needs it")
            request = max(
                (*(one[REQUEST] for one in self.running), *(one.request for one in self._joining)),
                key=self._known.order.key.__getitem__,
            )
            self.preemptions += 1
            if self._leave(request, paging, now):
                leaving.append(request)
                coming += len(self._held[request])
        return leaving

    def _leave(self, request: int, paging: Paging, now: Picoseconds) -> bool:
        """One makes room; whether its KV cache goes to DDR, and keeps its pages until it has."""
        key = self._known.order.key[request]
        for joining in self._joining:
            if joining.request == request:
                self._joining.remove(joining)
                self.recomputed += joining.done
                joining.done = 0
                insort(self._away, Away(key, request, joining))
                paging.release(self._held.pop(request), now)
                return False
        one = next(one for one in self.running if one[REQUEST] == request)
        self.absent.append(request)
        context, left, generated = self.steps + one[OFFSET], one[LAST] - self.steps, self.generated(one)
        self.running.remove(one)
        self._offsets -= one[OFFSET]
        size = len(self._held[request]) * paging.page
        address = self._swap.allocate(size) if self.settings.swap else None
        if address is not None:
            insort(self._away, Away(key, request, None, (paging.symbol(), address, size), left, context))
            return True
        self.recomputed += context - 1
        self._known.input_tokens[request] += generated
        self._known.output_tokens[request] -= generated
        again = Joining(request, self._known.input_tokens[request], one[KV], None)
        insort(self._away, Away(key, request, again))
        paging.release(self._held.pop(request), now)
        return False

    def _come_back(self, now: Picoseconds) -> Task | None:
        """The first of those who made room comes back, where there is room for it until the next answer ends."""
        if not self._away or self._joining:
            return None
        one, paging = self._away[0], self._paging
        assert paging is not None and self.active is not None
        tokens = one.context - 1 if one.joining is None else one.joining.length
        left = one.left if one.joining is None else self._known.output_tokens[one.request] - 1
        count = paging.pages(self.active, tokens)
        if self.running:
            until = min(self.running[0][LAST] - self.steps, left)
            if paging.pages(self.active, tokens + until) + self._wanted(until) > len(paging.free):
                return None
        self._held[one.request] = paging.take(count, now)
        if one.joining is None:
            return Task([SWAP_IN], self.active, ([one.request], ()), [one.swapped])
        del self._away[0]
        if self.settings.prefill_chunk:
            self._joining.append(one.joining)
            return None
        return Task([AGAIN], self.active, ([one.request], [one.joining.length]), [IN_PAGES])

    def swap_bytes(self, request: int) -> Bytes:
        """KV cache of a request that leaves or comes back."""
        assert self._paging is not None
        return len(self._held[request]) * self._paging.page

    def swap(self, request: int, to: Tier, start: Picoseconds, end: Picoseconds) -> None:
        """Its KV cache is moved to a tier meanwhile."""
        where = next(one.swapped for one in self._away if one.request == request)
        if to == Tier.DDR:
            self.stream.memory(Kind.ALLOCATE, start, Tier.DDR, *where)
        self.stream.swap(start, to, where, end)
        self.swapped += where[2]

    def left(self, requests: Sequence[int], now: Picoseconds) -> None:
        """Their KV cache is in DDR now, and their pages are free."""
        assert self._paging is not None
        self._paging.release([*chain.from_iterable(self._held.pop(request) for request in requests)], now)

    def back(self, now: Picoseconds) -> None:
        """The first of those who made room has its KV cache in HBM again, and is in the running batch."""
        one = self._away.pop(0)
        self.stream.memory(Kind.FREE, now, Tier.DDR, *one.swapped)
        self._swap.release(one.swapped[1])
        offset = one.context - self.steps
        self._offsets += offset
        insort(self.running, (self.steps + one.left, one.request, offset, IN_PAGES))
