"""One tensor-parallel group: its running batch, its memory, and the decision what is next.

It decides, addresses included, and never knows how long something takes: who does (``node.lane``) tells it when a task
is over. Requests are numbers, their places in the workload; those who wait are keys (``node.runtime.service``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final

from node.errors import InvariantError
from node.runtime import steps
from node.runtime.memory import GroupMemory
from node.runtime.queues import Known, Queues
from node.runtime.scheduler import DECODE, Decision, Route, Serve
from node.runtime.settings import Settings
from node.runtime.sharding import Layout
from node.runtime.stay import Stays
from node.runtime.task import Task, decode_task, router_task, serve_task
from node.stream import Perform, Range, Stream
from node.units import Picoseconds

# A request in the running batch: its last step by the group's count of steps, its number, what that count is short of
# the tokens that its next step attends to, its KV range
Running = tuple[int, int, int, Range]
LAST: Final = 0
REQUEST: Final = 1
OFFSET: Final = 2
KV: Final = 3


class Group(Queues):
    """A group of sockets. Those whom it is told to ``expect`` reach it by themselves, others are handed over to it."""

    # of the groups that have them, see ``node.runtime.continuous`` and ``node.runtime.programs``; not of each: Python
    # is quickest with objects of no more than 30 attributes
    preemptions: int = 0
    recomputed: int = 0
    swapped: int = 0
    image: int = 0  # of the run that begins

    def __init__(self, layout: Layout, settings: Settings, known: Known, perform: Perform | None = None) -> None:
        super().__init__(layout, settings, known)
        self.since, self.fairness, self.batch = known.order.since, settings.fairness, settings.batch
        self.stream = Stream(layout.group, perform)
        self.memory = GroupMemory(layout, settings, self.stream, self.waiting.of)
        self.cache = self.memory.cache
        self.stays = Stays(settings.stay, self.cache, self.waiting, known.order.since)
        self.blocked = self.stays.blocked  # the experts that cannot come to HBM at a time
        self.running: list[Running] = []  # in the order in which they end
        self.members = 0  # of the batch
        self.active: int | None = None
        self.routed = False
        self._open = settings.queue_limit is None and not settings.shed_late
        self.stopped = False  # nobody begins anything new
        self.batch_left = 0
        self.steps = 0  # of decode, since the beginning
        self._offsets = 0  # of the running batch, in all
        # requests by expert; a miss waits for a copy, of ``late`` ones begun before
        self.hits_of, self.misses_of = ([0] * len(settings.sizes) for _ in range(2))
        self.late = 0

    @property
    def hits(self) -> int:
        """Requests that found their expert in HBM."""
        return sum(self.hits_of)

    @property
    def misses(self) -> int:
        """Requests that waited for a copy."""
        return sum(self.misses_of)

    def next(self, now: Picoseconds) -> Decision:
        """What the scheduler wants."""
        if self.settings.shed_late:
            self._turn_away(now)
        return DECODE if self.stopped else self.settings.scheduler(self, now)

    def held_up(self, now: Picoseconds) -> Picoseconds | None:
        """Of an idle group: when somebody comes of age who stays in the room of those waited for.

        None if nobody waits, or there is a copy to wait for. Raises ``InvariantError`` where somebody could be served.
        """
        if not (self.waiting.count or self.members or self.unrouted):
            return None
        blocked, until, copying = self.blocked(now), self.stays.of_age(now), self.cache.copying is not None
        for_nothing = self.members or self.unrouted or (until is None and not copying)
        if for_nothing or not all(expert in blocked for expert in self.waiting.queues):
            raise InvariantError(f"group {self.layout.group} is idle at {now:,} ps with requests waiting")
        return None if copying else until

    @property
    def activations(self) -> Counter[int]:
        """Copies by expert."""
        return self.memory.activations

    @property
    def settled(self) -> bool:
        """Whether nobody who comes can change what is next while the running batch decodes, nor is turned away then.

        There is no room for them, and the router, if there is one, does not run again before somebody is served.
        """
        return self._open and self.members >= self.batch and (self.routed or self.settings.router is None)

    def decide(self, now: Picoseconds) -> Task | None:
        """Begin what the scheduler wants; where KV cache has no room for it, the running batch goes on instead."""
        if self.settings.shed_late:
            self._turn_away(now)
        if self.batch_left:
            self.batch_left = min(self.batch_left, self.waiting.count)  # another group may have taken some of them
        decision = DECODE if self.stopped else self.settings.scheduler(self, now)
        if decision is None:
            return None
        task = None
        if isinstance(decision, Serve):
            task = self._serve(decision, now)
        elif isinstance(decision, Route):
            task = self._route(decision.requests, now)
        return self._decode(now) if task is None else task

    def _decode(self, now: Picoseconds) -> Task:
        """The running batch goes on."""
        if not self.running:
            raise InvariantError(f"group {self.layout.group}: no KV cache for anybody, and nobody to wait for")
        assert self.active is not None
        return decode_task(self.active)

    def give(self, expert: int, times: tuple[Picoseconds, Picoseconds, Picoseconds]) -> None:
        """An expert moves to another group: leaves HBM now, and is sent from one time to another."""
        if self.memory.give(expert, times):
            self.waiting.changed(expert, resident=False)

    def prefetch(self, now: Picoseconds, serving: int) -> int | None:
        """The expert that is served next, where it is not in HBM and got room without evicting one in use."""
        if self.settings.next_expert is None or self.cache.copying is not None or not self.waiting.count:
            return None
        in_use = {serving} if self.active is None or not self.members else {serving, self.active}
        expert = self.settings.next_expert(self, now, self.blocked(now, in_use))
        if expert is None or self.cache.resident(expert):
            return None
        return expert if self.activate(expert, now, in_use) else None

    def activate(self, expert: int, now: Picoseconds, in_use: Collection[int] | None = None) -> bool:
        """Give ``expert`` room in HBM; whether it has. ``in_use``: it is a prefetch, and they must not leave for it."""
        kept = self.stays.kept(expert, now, in_use or ())
        evicted = self.memory.activate(expert, now, kept, ahead=in_use is not None)
        for victim in evicted or ():
            self.waiting.changed(victim, resident=False)
        return evicted is not None

    def arrived(self, expert: int, now: Picoseconds) -> None:
        """The copy of ``expert`` is complete."""
        self.cache.arrived(expert, now)
        self.waiting.changed(expert, resident=True)

    def join(self, task: Task, now: Picoseconds, ended: Collection[int] = ()) -> list[Running]:
        """The prefill of ``task`` is over; those whose answer is complete with it, or has ``ended`` all the same."""
        self._enter(zip(task.who, task.lengths, task.kv, strict=True))
        if ended:
            self.cut_short(ended, self.steps)
        return self._end(now)

    def _enter(self, entering: Iterable[tuple[int, int, Range]]) -> None:
        """Requests, whose prompts are so long, have their first token: they are in the running batch."""
        before, outputs = self.steps - 1, self._known.output_tokens
        new = [(before + outputs[request], request, length - before, kv) for request, length, kv in entering]
        self._offsets += sum([one[OFFSET] for one in new])
        self.running += new
        self.running.sort()

    def generated(self, one: Running) -> int:
        """How many tokens a request of the running batch has."""
        return self.steps + one[OFFSET] - self._known.input_tokens[one[REQUEST]]

    def stepped(self, steps: int, now: Picoseconds) -> list[Running]:
        """The running batch did ``steps``; those whose answer is complete."""
        self.steps += steps
        return self._end(now)

    def cut_short(self, ended: Collection[int], steps: int) -> None:
        """The answers of ``ended`` turned out to end with step number ``steps``."""
        self.running = sorted((steps, *one[1:]) if one[REQUEST] in ended else one for one in self.running)

    def _end(self, now: Picoseconds) -> list[Running]:
        running, steps = self.running, self.steps
        if running[0][LAST] > steps:
            return []
        if running[-1][LAST] == steps:  # most batches end together
            ended, self.running = running, []
            self._offsets = 0
        else:
            count = bisect_right(running, steps, key=itemgetter(LAST))
            ended, self.running = running[:count], running[count:]
            self._offsets -= sum([one[OFFSET] for one in ended])
        self._release(ended, now)
        self.members -= len(ended)
        return ended

    def _release(self, ended: Sequence[Running], now: Picoseconds) -> None:
        self.memory.kv.release([one[KV] for one in ended], now)

    def _route(self, most: int, now: Picoseconds) -> Task | None:
        """Take up to ``most`` newcomers, and KV cache for all of them and the router's tokens for each."""
        settings, router = self.settings, self.settings.router
        assert router is not None
        tokens, inputs = settings.router_tokens, self._known.input_tokens
        who = self._known.order.requests(islice(self._unrouted, most))
        lengths = [inputs[request] for request in who]
        while who:
            held = self._reserve_for_router(router, [length + tokens for length in lengths], now)
            if held:
                for _ in who:
                    self._unrouted.popleft()
                self.routed = True
                return router_task((who, lengths), router, held, tokens, overhead=settings.call_overhead != "none")
            who.pop()
            lengths.pop()
        return None

    def _serve(self, serve: Serve, now: Picoseconds) -> Task | None:
        """Take up to ``serve.requests`` who wait for an expert, as many as get KV cache."""
        expert, settings, waiting = serve.expert, self.settings, self.waiting
        all_waiting = waiting.count
        who = self._known.order.requests(islice(waiting.queues[expert], serve.requests))
        held = self._reserve(who, now)
        if not held:
            return None
        count = len(held)
        del who[count:]
        waiting.take(expert, count)
        if serve.opens_batch:
            self.batch_left = min(settings.batch, all_waiting)
        self.batch_left -= count
        self.members += count
        miss = not self.cache.resident(expert)
        self.misses_of[expert] += miss
        self.late += expert == self.cache.copying
        self.hits_of[expert] += count - miss
        self.active, self.routed = expert, False
        overhead, inputs = settings.call_overhead, self._known.input_tokens
        calls = count if overhead == "per_request" else int(serve.opens_batch and overhead == "per_batch")
        return serve_task((who, [inputs[request] for request in who]), expert, miss, calls, held)

    def _reserve(self, who: Sequence[int], now: Picoseconds) -> list[Range]:
        """KV ranges for the first of ``who``, as many as get one: each for its whole length."""
        kv_bytes = self._known.kv_bytes
        return self.memory.kv.reserve([kv_bytes[request] for request in who], now)

    def _reserve_for_router(self, router: int, lengths: Sequence[int], now: Picoseconds) -> list[Range]:
        """KV cache for sequences of these lengths: one range for all, none where there is no room."""
        return self.memory.kv.reserve((self.settings.sizes[router].kv_bytes(lengths),), now)

    def release(self, held: Sequence[Range], now: Picoseconds) -> None:
        """The router is done with KV cache."""
        self.memory.kv.release(held, now)

    def prefill_step(self, task: Task) -> steps.Step:
        """One pass over the prompts of ``task``."""
        return steps.prefill(task.lengths, self.settings.sizes[task.expert].window)

    def first_step(self, task: Task) -> steps.Step:
        """The pass of ``task`` that will be the first with its expert."""
        return self.prefill_step(task)

    def decode_step(self, task: Task) -> steps.Step:
        """Steps of the running batch until somebody ends."""
        running, done = self.running, self.steps
        most, window = running[0][LAST] - done, self.settings.sizes[task.expert].window
        if window is None:
            return steps.decode(len(running), done * len(running) + self._offsets, most)
        return steps.windowed([done + one[OFFSET] for one in running], window, most)

    def router_step(self, task: Task) -> steps.Step:
        """The router's decode on the requests of ``task``; its first token came with its prefill."""
        generated = self.settings.router_tokens - task.steps
        lengths, window = task.lengths, self.settings.sizes[task.expert].window
        if window is None:
            return steps.decode(len(lengths), sum(lengths) + generated * len(lengths), task.steps)
        return steps.windowed([length + generated for length in lengths], window, task.steps)
