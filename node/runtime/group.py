"""One tensor-parallel group as a state machine: its queues, its running batch, and the task its sockets are at.

A task is a sequence of stages; each stage is one thing that takes time (a copy, a call, a kernel run), and each
request's time is charged by the stage it waits for. While a task runs, the running batch stalls, unless it is the
task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from node.errors import InvariantError
from node.events import Order
from node.runtime.admission import Waiting, admit, admit_to_router, wait
from node.runtime.group_memory import GroupMemory
from node.runtime.orders import Orders, Settings
from node.runtime.scheduler import Decision, Decode, Route, Serve, View
from node.runtime.served import Served
from node.runtime.sharding import Layout
from node.runtime.task import STAGES, Task, router_task, serve_task
from node.units import Picoseconds


class Outcome(NamedTuple):
    """What a completed stage brought: requests that ended, requests that now have their expert."""

    finished: list[Served]
    routed: list[Served]


class Group:
    """A group of sockets with its queues, its expert cache and its KV cache."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self.layout, self.settings = layout, settings
        self.orders = Orders(layout, settings)
        self._memory = GroupMemory(layout, settings, self.orders, lambda expert: len(self.waiting.get(expert, ())))
        self.cache = self._memory.cache
        self.unrouted: deque[Served] = deque()
        self.waiting: Waiting = {}
        self.running: list[Served] = []
        self.active: int | None = None
        self.activations = self._memory.activations  # by expert
        self.hits = self.misses = self.late = 0  # requests; a miss waits for a copy, of late ones begun before
        self._task: Task | None = None
        self._cut = False
        self._batch_left = 0
        self._routed = False

    @property
    def idle(self) -> bool:
        """Nothing runs."""
        return self._task is None

    @property
    def serving(self) -> Sequence[Served]:
        """The requests that the task under way is for."""
        return self._task.requests if self._task is not None else ()

    def arrive(self, arrived: Sequence[Served], now: Picoseconds) -> list[Order]:
        """Requests that have no expert yet."""
        self.unrouted += arrived
        return self._reconsider(now)

    def receive(self, routed: Sequence[Served], now: Picoseconds) -> list[Order]:
        """Requests whose expert lives here, from any group's router."""
        for served in routed:
            served.group = self.layout.group
            wait(self.waiting, served)
        return self._reconsider(now)

    def proceed(self, now: Picoseconds) -> list[Order]:
        """Decide what is next, where nothing runs."""
        if self._task is None:
            self._decide(now)
        if self.settings.next_expert is not None:
            self._prefetch(self.settings.next_expert, now)
        return self.orders.take()

    def arrived(self, expert: int, now: Picoseconds) -> None:
        """The copy of ``expert`` is complete: the task that waits for it goes on, or has its own copy begin."""
        self.cache.arrived(expert, now)
        task = self._task
        if task is not None and task.stages[0] == "copy":
            if task.expert == expert:
                self.done(0, now)
            else:
                self._start(task, now)

    def done(self, steps: int, now: Picoseconds) -> Outcome:
        """The stage under way is complete, a decode after ``steps``. The task's next stage begins, if it has one."""
        task = self._task
        assert task is not None
        stage = task.stages.pop(0)
        for served in task.requests:
            served.charge(STAGES[stage], now)
        if stage != "decode":
            for served in self.running:
                served.charge("stall", now)
        outcome = self._complete(stage, task, steps, now)
        if task.stages:
            self._start(task, now)
        else:
            self._task = None
        return outcome

    def _reconsider(self, now: Picoseconds) -> list[Order]:
        """Start something if idle; end a decode run early if there is something better to do."""
        if self._task is None:
            self._decide(now)
        elif self._task.stages[0] == "decode" and not self._cut and not isinstance(self._next(now), Decode):
            self._cut = True
            self.orders.cut()
        if self.settings.next_expert is not None:
            self._prefetch(self.settings.next_expert, now)
        return self.orders.take()

    def _complete(self, stage: str, task: Task, steps: int, now: Picoseconds) -> Outcome:
        if stage == "prefill":
            for served in task.requests:
                served.generated, served.ttft = 1, now - served.request.arrival
            self.running += task.requests
        elif stage == "decode":
            self._cut = False
            for served in self.running:
                served.generated += steps
        elif stage.startswith("router"):
            task.steps -= steps
            if task.steps:
                task.stages.append("router_decode")
                return Outcome([], [])
            self._memory.release(task.kv, now)
            return Outcome([], task.requests)
        finished = [served for served in self.running if served.remaining == 0]
        if finished:
            self.running = [served for served in self.running if served.remaining]
            for served in finished:
                self._memory.release(served.kv, now)
        return Outcome(finished, [])

    def _next(self, now: Picoseconds) -> Decision:
        return self.settings.scheduler(self._view(now, self.waiting))

    def _prefetch(self, next_expert: Callable[[View], int], now: Picoseconds) -> None:
        """Copy the expert that is served next while the sockets are at a task and their DMA at nothing."""
        if self._task is None or self.cache.copying is not None:
            return
        in_use = {self._task.expert, *(served.request.expert for served in self.running[:1])}
        waiting = {expert: queue for expert, queue in self.waiting.items() if expert not in in_use}
        if waiting:
            self._memory.prefetch(next_expert(self._view(now, waiting)), in_use, now)

    def _view(self, now: Picoseconds, waiting: Mapping[int, deque[Served]]) -> View:
        settings = self.settings
        return View(
            now=now,
            unrouted=self.unrouted,
            waiting=waiting,
            running=self.running,
            active=self.active,
            routed=self._routed,
            batch_left=self._batch_left,
            batch=settings.batch,
            fairness=settings.fairness,
            resident=self.cache.resident,
        )

    def _decide(self, now: Picoseconds) -> None:
        """Begin what the scheduler wants; where KV cache has no room for it, the running batch goes on instead."""
        match self._next(now):
            case None:
                return
            case Route(count=count):
                task = self._route(count, now)
            case Serve() as serve:
                task = self._serve(serve, now)
            case Decode():
                task = None
        if task is None:
            if not self.running:
                raise InvariantError(f"group {self.layout.group}: no KV cache for anybody, and nobody to wait for")
            expert = self.running[0].request.expert
            steps = min(served.remaining for served in self.running)
            task = Task(["decode"], self.running, expert, steps=steps)
        self._task = task
        self._start(task, now)

    def _route(self, count: int, now: Picoseconds) -> Task | None:
        settings = self.settings
        assert settings.router is not None
        size, tokens = settings.sizes[settings.router], settings.router_tokens
        chosen, kv = admit_to_router(self.unrouted, count, size, tokens, self._memory.reserve, now)
        if not chosen:
            return None
        self._routed = True
        return router_task(chosen, settings.router, kv, tokens, overhead=settings.call_overhead != "none")

    def _serve(self, serve: Serve, now: Picoseconds) -> Task | None:
        expert, size = serve.expert, self.settings.sizes[serve.expert]
        waiting = sum(map(len, self.waiting.values()))
        chosen = admit(self.waiting, expert, serve.count, size, self._memory.reserve, now)
        if not chosen:
            return None
        if serve.opens_batch:
            self._batch_left = min(self.settings.batch, waiting)
        self._batch_left -= len(chosen)
        miss = not self.cache.resident(expert)
        self.misses += miss
        self.late += expert == self.cache.copying
        self.hits += len(chosen) - miss
        self.active, self._routed = expert, False
        calls = {"per_request": len(chosen), "per_batch": int(serve.opens_batch), "none": 0}
        return serve_task(chosen, expert, miss, calls[self.settings.call_overhead])

    def _start(self, task: Task, now: Picoseconds) -> None:
        """Give the orders of the task's next stage."""
        stage, expert = task.stages[0], task.expert
        if stage == "copy":
            self._memory.activate(expert, now)
        elif stage == "call":
            self.orders.call(task.calls)
        elif stage in ("prefill", "router_prefill"):
            lengths = [served.request.input_tokens for served in task.requests]
            self.orders.prefill(expert, self._memory.use(expert, now, len(lengths)), lengths, now)
        else:
            # a request has generated its first token when it decodes; the router's first came with its prefill
            generated = self.settings.router_tokens - task.steps if stage == "router_decode" else 0
            contexts = [served.context + generated for served in task.requests]
            self.orders.decode(expert, self._memory.use(expert, now, 0), contexts, task.steps, now)
