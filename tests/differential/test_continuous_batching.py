"""Continuous batching against one written from its description, a token at a time: the same times to the picosecond.

Runs in closed form, cut short by arrivals and by pages that run out, must come to what single steps come to, whatever
the batch, the lengths, the pages and whoever makes room for whom. One socket, one expert, no router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.dataflow.form import Step
from node.deployment import Deployment
from node.models.shape import Shape
from node.request import Request
from node.runtime.continuous import ContinuousGroup
from node.runtime.service import Service
from node.units import MS

WIDE = Shape("wide", 2, hidden=256, heads=8, kv_heads=4, head_dim=32, ffn=700, vocabulary=1000, context=4096)
NARROW = replace(WIDE, name="narrow", sliding_window=40)
PRIORITIES = (Service("low"), Service("high", priority=1))
FAIRNESS = 3 * MS


@dataclass
class Served:
    """A request that has left the queue: ``seen`` tokens are in KV cache (or were), ``made`` were generated."""

    request: Request
    key: tuple[int, int]
    pages: int = 0
    seen: int = 0
    made: int = 0
    to_read: int = 0  # tokens of a prompt that have to be in KV cache before the next one is generated
    in_ddr: bool = False

    @property
    def left(self) -> int:
        return self.request.output_tokens - self.made


@dataclass
class Plain:
    """A socket that serves one expert a step at a time; ``first``, ``last``: when each request had these tokens."""

    deployment: Deployment
    waiting: list[Request]
    now: int = 0
    resident: bool = False
    queue: list[Request] = field(default_factory=list)
    running: list[Served] = field(default_factory=list)
    joining: list[Served] = field(default_factory=list)
    away: list[Served] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    preempted: int = 0

    def __post_init__(self) -> None:
        options, size = self.deployment.options, self.deployment.settings.sizes[0]
        self.block, self.chunk, self.batch = options.kv_block, options.prefill_chunk, options.batch
        self.window = size.window or 10**9
        self.page_bytes = self.block * size.kv_token
        self.free = options.kv_reserve // self.page_bytes if self.block else 10**9
        (self.program,) = self.deployment.programs(0)

    def key(self, request: Request) -> tuple[int, int]:
        services = self.deployment.options.services
        return request.arrival - services[request.service].priority * FAIRNESS, request.id

    def pages(self, tokens: int) -> int:
        return -(-min(tokens, self.window) // self.block) if self.block else 0

    def run(self) -> Plain:
        asked = True  # whether something has changed that a decision hangs on
        while self.waiting or self.queue or self.running or self.joining or self.away:
            while self.waiting and self.waiting[0].arrival <= self.now:
                self.queue.append(self.waiting.pop(0))
            self.queue.sort(key=self.key)
            if not (self.queue or self.running or self.joining or self.away):
                self.now = self.waiting[0].arrival
                continue
            if asked and self.away and not self.joining and self.come_back():
                continue
            if self.admit():
                asked = True
                continue
            if self.make_room():
                asked = True
                continue
            if self.joining:
                self.mixed_step()
                asked = True
            else:
                asked = bool(self.decode_step()) or self.missing(1) > self.free
        return self

    def missing(self, steps: int) -> int:
        return sum(max(0, self.pages(one.seen + steps) - one.pages) for one in self.running)

    def come_back(self) -> bool:
        one = min(self.away, key=lambda one: one.key)
        tokens = one.seen if one.in_ddr else one.to_read
        if self.running:
            until = min(other.left for other in self.running)
            until = min(until, one.left - (0 if one.in_ddr else 1))
            if self.pages(tokens + until) + self.missing(until) > self.free:
                return False
        self.away.remove(one)
        self.take(one, self.pages(tokens))
        if one.in_ddr:
            self.now += self.deployment.machine.copy_ps(one.pages * self.page_bytes, 1)
            one.in_ddr = False
            self.running.append(one)
        elif self.chunk:
            self.joining.append(one)
            return False
        else:
            self.now += self.program.prefill(prompts([(0, one.to_read)], [], self.window))[0]
            self.token([one])
        return True

    def admit(self) -> bool:
        room = self.batch - len(self.running) - len(self.joining) - len(self.away)
        new: list[Served] = []
        kept = self.missing(1) if self.chunk else 0
        while self.queue and room and not self.away and self.pages(self.queue[0].input_tokens) + kept <= self.free:
            one = Served(self.queue[0], self.key(self.queue.pop(0)))
            one.to_read = one.request.input_tokens
            self.take(one, self.pages(one.to_read))
            new.append(one)
            room -= 1
        if not new:
            return False
        if not self.resident:
            self.now += self.deployment.activation_ps(0)
            self.resident = True
        self.now += len(new) * round(self.deployment.machine.host.call_overhead * 10**12)
        if self.chunk:
            self.joining += new
            self.mixed_step()
        else:
            self.now += self.program.prefill(prompts([(0, one.to_read) for one in new], [], self.window))[0]
            self.token(new)
        return True

    def make_room(self) -> bool:
        moved = []
        while self.missing(1) > self.free + sum(one.pages for one in moved):
            one = max(self.running + self.joining, key=lambda one: one.key)
            self.preempted += 1
            self.away.append(one)
            if one in self.joining:
                self.joining.remove(one)
            else:
                self.running.remove(one)
                if self.deployment.options.preemption == "swap":
                    moved.append(one)
                    continue
                one.to_read = one.request.input_tokens + one.made
            one.seen = 0
            self.give(one)
        for one in moved:
            self.now += self.deployment.machine.copy_ps(one.pages * self.page_bytes, 1)
            one.in_ddr = True
        for one in moved:
            self.give(one)
        return bool(moved)

    def decode_step(self) -> list[Served]:
        contexts = [min(one.seen + 1, self.window) for one in self.running]
        self.grow()
        self.now += self.program.decode(len(contexts)).run_ps(sum(contexts), 0, 1)
        return self.token(list(self.running))

    def mixed_step(self) -> None:
        self.grow()
        budget, parts = self.chunk - len(self.running), []
        for one in self.joining:
            if budget:
                parts.append((one, min(budget, one.to_read - one.seen)))
                budget -= parts[-1][1]
        contexts = [one.seen + 1 for one in self.running]
        step = prompts([(one.seen, tokens) for one, tokens in parts], contexts, self.window)
        self.now += self.program.prefill(step)[0]
        for one, tokens in parts:
            one.seen += tokens
        done = [one for one, _ in parts if one.seen == one.to_read]
        self.joining = [one for one in self.joining if one not in done]
        self.token(list(self.running), done)

    def grow(self) -> None:
        for one in self.running:
            self.take(one, max(0, self.pages(one.seen + 1) - one.pages))

    def token(self, decoded: list[Served], read: Sequence[Served] = ()) -> list[Served]:
        """Each has one more token; of those who ``read`` a prompt it follows the last of that."""
        for one in decoded:
            if one in self.running:
                one.seen += 1
            else:
                one.seen = one.to_read
        for one in (*decoded, *read):
            one.made += 1
            self.first.setdefault(one.request.id, self.now)
            if one not in self.running:
                self.running.append(one)
        ended = [one for one in self.running if not one.left]
        for one in ended:
            self.last[one.request.id] = self.now
            self.running.remove(one)
            self.give(one)
        return ended

    def take(self, one: Served, pages: int) -> None:
        one.pages += pages
        self.free -= pages
        assert self.free >= 0

    def give(self, one: Served) -> None:
        self.free += one.pages
        one.pages = 0


def prompts(parts: list[tuple[int, int]], contexts: list[int], window: int) -> Step:
    """A pass over the next ``tokens`` of prompts of which ``seen`` are done, and a token of each context."""
    pairs = sum(min(place, window) for seen, tokens in parts for place in range(seen + 1, seen + tokens + 1))
    keys = sum(tokens + min(seen, window - 1) for seen, tokens in parts)
    decoded = sum(min(context, window) for context in contexts)
    tokens = sum(tokens for _, tokens in parts) + len(contexts)
    return Step(tokens, pairs + decoded, keys + decoded, len(parts) + len(contexts))


@st.composite
def workloads(draw: st.DrawFn) -> tuple[dict[str, object], list[Request], float]:
    rng = Random(draw(st.integers(0, 2**20)))
    longest, gap = draw(st.sampled_from([(200, MS), (60, MS // 10), (200, 0), (3, MS)]))
    arrival, requests = 0, []
    for number in range(draw(st.sampled_from([2, 6, 12, 30]))):
        arrival += rng.randint(0, gap)
        lengths = rng.randint(1, 150), rng.randint(1, longest)
        requests.append(Request(number, arrival, *lengths, 0, rng.randrange(2)))
    batch = draw(st.sampled_from([1, 2, 4, 8]))
    options: dict[str, object] = {
        "shapes": (draw(st.sampled_from([WIDE, NARROW])),),
        "batch": batch,
        "prefill_chunk": draw(st.sampled_from([0, 8, 40, 1000])),
        "kv_block": draw(st.sampled_from([1, 4, 16, 64])),
        "preemption": draw(st.sampled_from(["recompute", "swap"])),
        "prefetch": draw(st.booleans()),
    }
    return options, requests, draw(st.sampled_from([1.0, 1.0, 1.3, 2.0, 50.0]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workload=workloads())
@pytest.mark.parametrize("overhead", ["1 us", "300 us"])
def test_runs_in_closed_form_come_to_what_single_steps_come_to(deploy, simulate, overhead, workload):
    options, requests, factor = workload
    outcome, plain = served(deploy, simulate, options, requests, factor, overhead)
    assert {row.request.id: row.request.arrival + row.ttft for row in outcome.rows} == plain.first
    assert {row.request.id: row.end for row in outcome.rows} == plain.last
    (group,) = outcome.simulation.groups
    assert isinstance(group, ContinuousGroup) and group.preemptions == plain.preempted


def served(deploy, simulate, options, requests, factor, overhead="300 us"):
    (shape,) = options["shapes"]
    given_ = {
        "machine": "sn40l-socket",
        "degree": 1,
        "experts": ((shape.name, 1),),
        "slots": 1,
        "services": PRIORITIES,
        "fairness": FAIRNESS,
        "numbers": {"host.call_overhead": overhead},
        **options,
    }
    size = deploy(**given_).settings.sizes[0]
    block = options["kv_block"]
    longest = max(min(one.input_tokens + one.output_tokens, size.window or 10**9) for one in requests)
    reserve = int(-(-longest // block) * factor) * block * size.kv_token
    deployment = deploy(**given_, kv_reserve=reserve)
    return simulate(deployment, requests), Plain(deployment, list(requests)).run()


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("chunk", [0, 16])
def test_the_cases_drawn_are_such_that_requests_make_room(deploy, simulate, preemption, chunk):
    """Or the property above would say little."""
    requests = [Request(n, n * MS // 20, 40, 60 + n, 0) for n in range(12)]
    options = {"shapes": (WIDE,), "batch": 8, "prefill_chunk": chunk, "kv_block": 4, "preemption": preemption}
    outcome, plain = served(deploy, simulate, options, requests, 2.0)
    (group,) = outcome.simulation.groups
    assert group.preemptions == plain.preempted >= 3
    assert (group.swapped > 0) == (preemption == "swap") and (group.recomputed > 0) == (preemption == "recompute")
    assert outcome.counters[0]["swapped_out"] + outcome.counters[0]["swapped_in"] == group.swapped
