"""One group in virtual time: its task stage by stage, and what interrupts it.

A stage is one thing that takes time: a copy, a call, a kernel run. Where nothing can come between the stages of a task
they are gone through at once, up to the last one; where copies may be beside runs each is waited for by itself, since
a copy that begins moves its end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from node.errors import InputError
from node.events import Ints, Kind, Serving
from node.hardware.host import Host
from node.hardware.sockets import OverlappingSockets, Sockets
from node.runtime.group import KV, REQUEST, Group, Running
from node.runtime.ledger import Ledger
from node.runtime.scheduler import Decode
from node.runtime.steps import Step
from node.runtime.task import CALL, COPY, DECODE, PREFILL, ROUTER_DECODE, ROUTER_PREFILL, Task
from node.stream import Perform
from node.units import MOST_PS, NEVER, PS_PER_S, Picoseconds

ARRIVAL, COMPLETION = 0, 1  # what comes first of one moment


HandOver = Callable[[Sequence[int], Picoseconds], None]


class Lane:
    """A group, its sockets and the host they share; ``hand_over`` is told who was routed. ``now``: its last event."""

    def __init__(
        self,
        group: Group,
        sockets: Sockets,
        host: Host,
        ledger: Ledger,
        hand_over: HandOver,
    ) -> None:
        self.group, self.sockets, self._host = group, sockets, host
        self._programs = group.settings.programs
        self.now: Picoseconds = 0
        self.completed = 0
        self.idle_ps: Picoseconds = 0  # up to the last task's beginning
        self.held_ps: Picoseconds = 0  # of it, how long those who waited found no room
        self._ledger, self._hand_over = ledger, hand_over
        self._overlapping = sockets if isinstance(sockets, OverlappingSockets) else None
        self.idle_since: Picoseconds = 0  # when the last task ended
        self._held_since: Picoseconds | None = None
        self._copying_since: Picoseconds = 0
        self._task: Task | None = None
        self._stage = CALL  # that is under way, where there is a task
        self._arrival_at = NEVER
        self._rest_at = NEVER  # when the stage is over
        self._copy_at = NEVER  # when the copy of an expert is over or, without one, somebody comes of age
        self._began: Picoseconds = 0  # the stage
        self._steps = 0  # of the run under way
        self._ended: Collection[int] = ()  # whose answers ended with their first token
        self._fixed = False  # whatever comes, the decode run under way ends as it is planned now
        self._clock: Picoseconds = 0  # of decode
        self._stopped_until: Picoseconds = 0

    def expect(self, newcomers: Ints, times: Ints) -> None:
        """``newcomers`` will reach the group by themselves, at ``times``, in order, after all before."""
        self.group.arrivals.expect(newcomers, times)
        self._arrival_at = self.group.arrivals.next()

    def program(self, expert: int) -> int:
        """The program of an expert."""
        return self._programs[expert]

    def stop(self, now: Picoseconds) -> None:
        """Begin nothing but what the running batch needs, until told to ``resume``."""
        self._stopped_until, self.group.stopped = NEVER, True
        self._held_no_more(now)

    def resume(self, now: Picoseconds, at: Picoseconds) -> None:
        """Go on at a time, idle until ``now`` and at something else from then on."""
        self.group.stopped = False
        self._stopped_until = self._copy_at = at
        self.idle_ps += now - self.idle_since
        self.idle_since, self.now = at, max(self.now, now)

    @property
    def idle(self) -> bool:
        """It is at nothing."""
        return self._task is None

    def next(self) -> tuple[Picoseconds, int]:
        """When something happens next that may matter to a decision, and whether it is an arrival."""
        rest = self._rest_at if self._rest_at < self._copy_at else self._copy_at
        if self._arrival_at <= rest and (
            self._task is None or (self._stage == DECODE and not self._fixed) or self._overlapping is not None
        ):
            return self._arrival_at, ARRIVAL
        return rest, COMPLETION

    def next_for_somebody(self) -> Picoseconds:
        """When something happens next for which somebody waits, or that is under way; ``NEVER`` where it is in vain."""
        time, what = self.next()
        return NEVER if what == COMPLETION and self._task is None and self._in_vain() else time

    def run(self, until: Picoseconds, commands: int) -> None:
        """Let time pass up to (not including) ``until``, or until there are so many ``commands`` to take."""
        stream = self.group.stream
        enough = stream.taken + commands
        while stream.next < enough:
            time, what = self.next()
            if time >= until:
                return
            self.step(time, what)

    def step(self, time: Picoseconds, what: int) -> None:
        """Let the next event happen."""
        if what == ARRIVAL:
            self.now = time
            self._welcome(time)
            self.reconsider(time)
        elif self._rest_at < self._copy_at:
            self.now = time
            self._rested(time)
        else:
            if not self._in_vain():
                self.now = time
            self._copied(time)

    def reconsider(self, now: Picoseconds) -> None:
        """Start something if idle; end a decode run early if there is something better to do."""
        if self._task is None:
            self._decide(now)
        elif self._stage == DECODE and not self._fixed and not isinstance(self.group.next(now), Decode):
            self._fixed = True
            self._rest_at, self._steps = self.sockets.cut(now)
        if self._overlapping is not None:
            self._prefetch(now)

    def _proceed(self, now: Picoseconds) -> None:
        """Decide what is next, where nothing runs."""
        if self._task is None:
            self._decide(now)
        if self._overlapping is not None:
            self._prefetch(now)

    def _welcome(self, now: Picoseconds) -> None:
        self.group.welcome(now)
        self._arrival_at = self.group.arrivals.next()

    def _decide(self, now: Picoseconds) -> None:
        if now < self._stopped_until and not self.group.members:
            return
        if self._held_since is not None:
            self._held_no_more(now)
        task = self._task = self.group.decide(now)
        if task is not None:
            self.idle_ps += now - self.idle_since
            task.started = task.copied = task.called = now
            self._go_on(task, now)
            return
        until = self.group.held_up(now)
        if until is not None:
            self._held_since, self._copy_at = now, until

    def _held_no_more(self, now: Picoseconds) -> None:
        if self._held_since is not None:
            self.held_ps += now - self._held_since
            self._held_since = None

    def _go_on(self, task: Task, now: Picoseconds) -> None:
        """Begin the next stage; go on to the last one where nothing may come between."""
        stages = task.stages
        while True:
            stage = self._stage = stages.pop()
            self._began = now
            end = self._rest_at = self._begin(stage, task, now)
            if end > MOST_PS and end != NEVER:
                raise InputError(
                    f"virtual time passes {MOST_PS // PS_PER_S:,} s: the machine is too slow for this workload, "
                    "or the workload too long"
                )
            if not stages or self._overlapping is not None:
                return
            self._end(self._stage, task, end)
            now = end

    def _begin(self, stage: int, task: Task, now: Picoseconds) -> Picoseconds:
        """Begin a stage: when it is over."""
        group = self.group
        if stage == CALL:
            return self._host.call(task.calls, now)
        if stage == COPY:
            return self._copy(task, now)
        if stage in (PREFILL, ROUTER_PREFILL):
            end = self._pass(group.prefill_step(task), task.expert, len(task.who), now)
            if group.stream.perform is not None and stage == PREFILL:
                serving = [Serving(one, 0, symbol) for one, (symbol, *_) in zip(task.who, task.kv, strict=True)]
                self._ended = group.stream.perform(group.stream.under_way(), serving).ended
            return end
        expert = task.expert
        step = group.decode_step(task) if stage == DECODE else group.router_step(task)
        self._fixed = group.settled
        weights = (expert, group.memory.use(expert, now, 0), self._programs[expert])
        group.stream.run(Kind.DECODE, now, weights, step, group.image)
        if stage == ROUTER_DECODE:
            task.steps -= step[5]
            if task.steps:
                task.stages.append(ROUTER_DECODE)
        elif group.stream.perform is not None:
            step = (*step[:5], self._generate(group.stream.perform))
        self._steps = step[5]
        return self.sockets.decode(now, weights[2], step)

    def _pass(self, step: Step, expert: int, requests: int, now: Picoseconds) -> Picoseconds:
        """One pass begins, the first of so many ``requests``: when it is over."""
        group = self.group
        weights = (expert, group.memory.use(expert, now, requests), self._programs[expert])
        group.stream.run(Kind.PREFILL, now, weights, step, group.image)
        self._steps = 0
        return self.sockets.prefill(now, weights[2], step)

    def _generate(self, perform: Perform) -> int:
        """Do a decode run with content: the steps that came of it."""
        group = self.group
        serving = [Serving(one[REQUEST], group.generated(one), one[KV][0]) for one in group.running]
        steps, ended = perform(group.stream.under_way(), serving)
        if ended:
            group.cut_short(ended, group.steps + steps)
        return steps

    def _end(self, stage: int, task: Task, now: Picoseconds) -> None:
        """A stage is over."""
        if stage >= ROUTER_PREFILL:
            self.group.stream.ran(self._steps, now)
            return
        task.called = now
        if stage == COPY:
            task.copied = now
            if self._overlapping is None:
                self.group.arrived(task.expert, now)

    def _rested(self, now: Picoseconds) -> None:
        """The stage under way is over: the next one begins, or the task is complete."""
        task, stage = self._task, self._stage
        assert task is not None
        self._end(stage, task, now)
        self._rest_at = NEVER
        if task.stages:
            self._go_on(task, now)
        else:
            self._task, self.idle_since = None, now
            self._complete(stage, task, now)
            if self.idle:  # who is handed over may have begun something
                self._decide(now)
        if self._overlapping is not None:
            self._prefetch(now)

    def _complete(self, stage: int, task: Task, now: Picoseconds) -> None:
        group, ledger = self.group, self._ledger
        if self._arrival_at <= now:
            self._welcome(now)
        if stage in (ROUTER_PREFILL, ROUTER_DECODE):
            group.release(task.kv, now)
            number = ledger.run(task.started, task.called, now)
            routed = ledger.routed
            for request in task.who:
                routed[request] = number
            self._hand_over(task.who, now)
            return
        if stage == DECODE:
            self._clock += now - self._began
            ended = group.stepped(self._steps, now)
        else:
            number = ledger.task((group.layout.group, task.started, task.copied, task.called, now, self._clock))
            served = ledger.served
            for request in task.who:
                served[request] = number
            ended = group.join(task, now, self._ended)
        self._ended_now(ended, now)

    def _ended_now(self, ended: Sequence[Running], now: Picoseconds) -> None:
        if ended:
            self._ledger.end([one[REQUEST] for one in ended], now, self._clock)
            self.completed += len(ended)

    def _copy(self, task: Task, now: Picoseconds) -> Picoseconds:
        """An expert is to be copied: until when its task waits for that; ``NEVER`` where ``_copied`` will say so."""
        group, expert = self.group, task.expert
        if self._overlapping is None:
            group.activate(expert, now)
            return self._begin_copy(expert, now)
        if group.cache.copying is None:
            group.activate(expert, now)
            self._copy_at = self._begin_copy(expert, now)
        if group.cache.copying != expert or not group.settings.partial:
            return NEVER
        program, step = self._programs[expert], group.first_step(task)
        return max(now, self._overlapping.ready(self._copying_since, program, step))

    def _begin_copy(self, expert: int, now: Picoseconds) -> Picoseconds:
        start = self._copying_since = self._host.grant(now)
        end = self.sockets.copy(start, self._programs[expert])
        self._host.release(end)
        self.group.memory.copy(expert, start, end)
        return end

    def _in_vain(self) -> bool:
        """Whether nobody waits for whoever comes of age: another group has served those who did."""
        return self.group.cache.copying is None and not self.group.waiting.count

    def _copied(self, now: Picoseconds) -> None:
        """The copy under way is complete: the task that waits for it goes on, or has its own copy begin.

        Or nothing is under way, and somebody has come of age.
        """
        self._copy_at = NEVER
        expert, task = self.group.cache.copying, self._task
        if expert is None:
            self._proceed(now)
            return
        self.group.arrived(expert, now)
        if task is not None and self._stage == COPY:
            if task.expert == expert:
                self._end(COPY, task, now)
                self._go_on(task, now)
            else:
                self._rest_at = self._copy(task, now)
        self._proceed(now)

    def _prefetch(self, now: Picoseconds) -> None:
        """Copy the expert that is served next while the sockets are at a task and their DMA at nothing."""
        if self._task is None or self._overlapping is None:
            return
        expert = self.group.prefetch(now, self._task.expert)
        if expert is not None:
            self._copy_at = self._begin_copy(expert, now)
            if self._stage not in (CALL, COPY):
                self._rest_at = self._overlapping.moved()
        elif self.group.cache.copying is None:
            self._copy_at = _at(self.group.stays.of_age(now))


def _at(time: Picoseconds | None) -> Picoseconds:
    return NEVER if time is None else time
