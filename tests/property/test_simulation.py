"""Whatever is asked of whatever machine: is everybody served once, on the same terms, however time is sliced?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.dataflow.compiler import Compiler
from node.dataflow.form import Step
from node.dataflow.graph import Block
from node.dataflow.kernel import Kernel
from node.events import Kind
from node.models.shape import Shape
from node.request import Request, Requests
from node.runtime.continuous import ContinuousGroup
from node.runtime.homes import HOMES, PLACEMENTS, ROUTERS, Sharding
from node.runtime.policies import EVICTION
from node.runtime.scheduler import SCHEDULERS
from node.runtime.service import Service, order_of
from node.runtime.settings import CALL_OVERHEADS, kv_bytes
from node.units import MS

# 9 heads on 3 KV heads: over 2, 4 or 8 sockets, shards differ in weights and in KV cache
UNEVEN = Shape("uneven", 2, hidden=288, heads=9, kv_heads=3, head_dim=32, ffn=770, vocabulary=1001, context=4096)
NARROW = replace(UNEVEN, name="narrow", layers=3, kv_heads=9, sliding_window=40)
SHAPES = (UNEVEN, NARROW)
TIGHT, AMPLE = 2**24, 2**30  # bytes of HBM for one or two compiled programs, and for all
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def kernels_made_once() -> Iterator[None]:
    """Machines of one name differ here in the capacity of HBM alone, which no kernel depends on."""
    make, made = Compiler.kernels, {}

    def kernels(compiler: Compiler, blocks: Sequence[Block], step: Step, direct: frozenset[str]) -> tuple[Kernel, ...]:
        key = compiler.machine.name, compiler.members, compiler.level, compiler.by_hardware, tuple(blocks), step, direct
        if key not in made:
            made[key] = make(compiler, blocks, step, direct)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compiler, "kernels", kernels)
        yield


@st.composite
def workloads(draw: st.DrawFn) -> tuple[dict[str, object], list[Request]]:
    """Arguments of ``deploy``, and requests for what it deploys; many of them arrive at one moment."""
    counts = draw(st.sampled_from([(1, 0), (3, 0), (3, 2), (1, 1), (9, 3)]))
    gap = draw(st.sampled_from([5 * MS, MS, MS // 10, 0, 50 * MS]))
    longest = draw(st.sampled_from([300, 45, 300, 2]))
    rng = Random(draw(st.integers(0, 2**20)))  # from a seed, as large numbers drawn one by one are seldom varied
    arrival, requests = draw(st.sampled_from([0, 5])), []
    for number in range(draw(st.sampled_from([1, 5, 20, 40]))):
        arrival += rng.randint(0, gap) * rng.choice([0, 1, 1])
        lengths = rng.randint(1, 300), rng.randint(1, longest)
        requests.append(Request(number, arrival, *lengths, rng.randrange(sum(counts)), rng.randrange(3)))
    deployed: dict[str, Any] = {
        "machine": draw(st.sampled_from(["sn40l-node", "dgx-a100"])),
        "experts": tuple((shape.name, count) for shape, count in zip(SHAPES, counts, strict=True) if count),
        "shapes": SHAPES,
        "router": draw(st.sampled_from([None, None, "llama-2-7b", "uneven"])),
        "degree": draw(st.sampled_from([8, 8, 4, 4, 2, 1])),
        "slots": draw(st.sampled_from([1, 1, 2, 3, 4])),
        "scheduler": draw(st.sampled_from(["affinity", *SCHEDULERS])),
        "batch": draw(st.sampled_from([8, 4, 3, 2, 1])),
        "eviction": draw(st.sampled_from(list(EVICTION))),
        "call_overhead": draw(st.sampled_from(["none", "none", *CALL_OVERHEADS])),
        "router_tokens": draw(st.sampled_from([1, 2, 20])),
        "fairness": draw(st.sampled_from([0, 1, 50 * MS, 30_000 * MS])),
        "prefetch": draw(st.booleans()),
        "partial": draw(st.booleans()),
        "min_residency": draw(st.sampled_from([0, 0, 1, 5 * MS, 40 * MS, 1_000 * MS])),
        "drain": draw(st.sampled_from([0, 0, 1, 3, 1_000])),
    }
    if draw(st.booleans()):
        deployed |= {
            "prefill_chunk": draw(st.sampled_from([0, 8, 50, 512])),
            "kv_block": draw(st.sampled_from([0, 1, 16])),
        }
        deployed |= {"preemption": draw(st.sampled_from(["recompute", "swap"]))}
    if draw(st.sampled_from([False, False, True])):  # programs, which nothing goes with that cuts runs up
        alone = {"machine": "sn40l-node", "prefetch": False, "partial": False, "prefill_chunk": 0, "kv_block": 0}
        reserve = draw(st.sampled_from([TIGHT, 2 * TIGHT, AMPLE]))
        deployed |= {**alone, "preemption": "recompute", "switching": "program", "program_reserve": reserve}
    if sum(counts) > 1 and draw(st.booleans()):
        deployed |= {"pinned": (0,), "slots": deployed["slots"] + 1}
    if draw(st.booleans()):  # of a first token the expert's copy alone takes many ms
        promises = draw(st.sampled_from([(None, None, None), (200 * MS, 10_000 * MS, None)]))
        names = zip("abc", draw(st.sampled_from([(0, 0, 0), (0, 1, 9)])), promises, strict=True)
        deployed |= {"services": tuple(Service(name, step, ttft) for name, step, ttft in names)}
        deployed |= {"queue_limit": draw(st.sampled_from([None, 1, 6])), "shed_late": promises[1] is not None}
    else:
        requests = [replace(request, service=0) for request in requests]
    may_move = deployed["machine"] == "sn40l-node" and not (deployed["prefetch"] or deployed["partial"])
    shares = tuple(rng.choice([0, 1, 5, 50]) for _ in range(sum(counts)))
    deployed["sharding"] = Sharding(
        placement=draw(st.sampled_from(PLACEMENTS)),
        home=draw(st.sampled_from(["one_group", *HOMES])),
        replicas=draw(st.sampled_from([0, 0, 1, 3])),
        router=draw(st.sampled_from(ROUTERS)) if deployed["degree"] < 8 else "replicated",
        shares=shares,
        rebalance=draw(st.sampled_from([0, 0, 20 * MS, 300 * MS])) if may_move and "switching" not in deployed else 0,
    )
    return deployed | {"kv_factor": draw(st.sampled_from([50.0, 2.0, 1.3, 1.0]))}, requests


def deployed(deploy, arguments: dict[str, object], requests: list[Request]):
    """The deployment, its KV cache just large enough for the largest request, or ``kv_factor`` times that."""
    arguments = dict(arguments)
    factor = arguments.pop("kv_factor")
    settings, tokens = deploy(**arguments).settings, arguments["router_tokens"]
    asked = [replace(request, arrival=0) for request in requests]
    if arguments["router"]:
        asked += [replace(one, expert=settings.router, output_tokens=tokens) for one in asked]
    needed = int(kv_bytes(Requests.of(asked), settings.sizes, settings.kv_block).max())
    return deploy(**arguments, kv_reserve=int(needed * factor))


@EXAMPLES
@given(workload=workloads())
def test_everybody_is_served_once_and_every_command_serves_somebody(deploy, simulate, workload):
    """``simulate`` holds each request's times, each socket's answers and all conservation laws to account."""
    arguments, requests = workload
    deployment = deployed(deploy, arguments, requests)
    outcome = simulate(deployment, requests)
    assert [row.end for row in outcome.rows] == sorted(row.end for row in outcome.rows)
    moves = deployment.sharding.rebalance > 0
    assert all(moves or row.group in deployment.homes[row.request.expert] for row in outcome.rows)
    router, started = deployment.settings.router, defaultdict[int, list[tuple[int, int, int]]](list)
    key = order_of(outcome.simulation.requests, deployment.options.services, deployment.options.fairness).key
    for row in outcome.rows:
        assert row.ttft + row.charges["decode"] <= row.e2e
        assert (row.charges["router"] > 0) == (router is not None)
        assert (row.charges["decode"] > 0) == (row.request.output_tokens > 1)
        if router is None:
            arrival = row.request.arrival
            started[row.request.expert].append((arrival + row.charges["queue"], key[row.request.id], arrival))
    for first, then in chain.from_iterable(pairwise(sorted(of)) for of in started.values()):
        assert first[1] < then[1] or then[2] > first[0]  # who goes before whom, or was not there yet
    prompts, generated, again, routed = Counter[int](), Counter[int](), Counter[int](), 0
    for group, plans in outcome.planned.items():
        commands = [plan.command for plan in plans]
        assert [command.sequence for command in commands] == list(range(len(commands)))
        engines = [(Kind.COPY,), (Kind.PREFILL, Kind.DECODE)]
        if not (arguments["prefetch"] or arguments["partial"]):
            engines = [(Kind.COPY, Kind.IMAGE, Kind.PREFILL, Kind.DECODE)]
        for kinds in engines:
            for first, then in pairwise(plan for plan in plans if plan.command.kind in kinds):
                assert max(done.time for done in first.completions) <= then.command.issued
        decided = [c.issued for c in commands if c.kind != Kind.COPY or not arguments["prefetch"]]
        assert decided == sorted(decided)
        for plan in (plan for plan in plans if plan.command.kind in (Kind.COPY, Kind.PREFILL, Kind.DECODE)):
            command = plan.command
            assert 1 <= command.sequences <= deployment.options.batch or command.kind == Kind.COPY
            assert command.program == deployment.settings.programs[command.symbol]
            if command.kind == Kind.PREFILL:
                prompts[command.symbol] += command.tokens
                routed += command.sequences * (command.symbol == router)
            if command.kind == Kind.DECODE:
                generated[command.symbol] += command.steps * command.sequences
                assert command.steps >= 1
        check_programs(deployment, commands)
        assert outcome.simulation.groups[group].memory.had >= {c.symbol for c in commands if c.kind == Kind.COPY}
    served = [row.request for row in outcome.rows]
    assert router is None or len(served) <= routed <= len(requests)
    assert routed == (0 if router is None else len(requests)) or outcome.simulation.turned_away
    for expert in range(deployment.catalogue.count):
        mine = [request for request in served if request.expert == expert]
        read, written = sum(one.input_tokens for one in mine), sum(one.output_tokens - 1 for one in mine)
        if not deployment.settings.continuous:
            assert (prompts[expert], generated[expert]) == (read, written)
        again[expert] = prompts[expert] + generated[expert] - read - written
    made_room = [group for group in outcome.simulation.groups if isinstance(group, ContinuousGroup)]
    assert sum(again.values()) == sum(group.recomputed for group in made_room) and min(again.values()) >= 0


def check_programs(deployment, commands):
    """Every run has the image of its own program, which was loaded for a run; who leaves was used longest ago."""
    kinds = [deployment.programs(rank) for rank in sorted(set(deployment.rank_kinds))]
    unit = deployment.machine.kernel.configuration
    images, sizes, recent, wanted, loads = {}, {}, [], None, 0
    for one in commands:
        if one.kind == Kind.IMAGE:
            assert wanted is None
            wanted, sizes[one.symbol] = one.symbol, one.size
            loads += 1
            recent.append(one.symbol)
        if one.kind == Kind.FREE and one.symbol in recent:
            assert one.symbol == recent.pop(0)
        if one.kind not in (Kind.PREFILL, Kind.DECODE):
            continue
        if deployment.options.switching == "expert":
            assert one.source == 0
            continue
        programs = [of[one.program] for of in kinds]
        if one.kind == Kind.PREFILL:
            keys = [p.prefill_key(Step(one.tokens, one.pairs, one.context, one.sequences)) for p in programs]
        else:
            keys, last = (
                [p.decode_key(one.sequences, one.context + one.growth * done) for p in programs]
                for done in (0, one.steps - 1)
            )
            assert keys == last
        assert wanted in (None, one.source)
        wanted = None
        assert images.setdefault(one.source, (one.program, keys)) == (one.program, keys)
        assert sizes[one.source] == unit * max(p.units(key) for p, key in zip(programs, keys, strict=True))
        recent.append(recent.pop(recent.index(one.source)))
    assert len({str(of) for of in images.values()}) == len(images) <= loads
    assert loads == len(images) or deployment.options.program_reserve < AMPLE


@EXAMPLES
@given(workload=workloads())
def test_prefetch_evicts_nobody_who_is_served_and_shares_the_host_link_in_turn(deploy, simulate, workload):
    arguments, requests = workload
    arguments |= {"prefetch": True, "switching": "expert"}
    arguments["sharding"] = replace(arguments["sharding"], rebalance=0)  # which is refused beside it
    outcome = simulate(deployed(deploy, arguments, requests), requests)
    copies = []
    for group, plans in outcome.planned.items():
        copies += [plan for plan in plans if plan.command.kind == Kind.COPY]
        freed = {(c.symbol, c.issued) for plan in plans if (c := plan.command).kind == Kind.FREE}
        for row in (row for row in outcome.rows if row.group == group):
            # its call comes before its prefill, so it is served for longer still
            served = sum(row.charges[what] for what in ("switch", "prefill", "decode", "stall"))
            times = [at for symbol, at in freed if symbol == row.request.expert]
            assert not any(row.end - served < at < row.end for at in times)
    if arguments["machine"] == "dgx-a100":
        for first, then in pairwise(sorted(copies, key=lambda plan: plan.command.issued)):
            assert max(done.time for done in first.completions) <= then.command.issued


@EXAMPLES
@given(workload=workloads(), widths=st.lists(st.integers(1, 400 * MS), min_size=1, max_size=8), data=st.data())
def test_how_time_is_sliced_into_windows_changes_nothing(deploy, simulate, workload, widths, data):
    arguments, requests = workload
    deployment = deployed(deploy, arguments, requests)
    whole = simulate(deployment, requests)
    some_event = data.draw(st.sampled_from(whole.rows)).end if whole.rows else 0
    until, time = {some_event, some_event + 1, requests[-1].arrival}, 0
    for width in widths * 4:
        time += width
        until.add(time)
    sliced = simulate(deployment, requests, sorted(until))
    assert sliced.trace() == whole.trace()
    assert sliced.rows == whole.rows
    assert sliced.counters == whole.counters
    assert sliced.simulation.idle_ps == whole.simulation.idle_ps
    assert sliced.simulation.now == whole.simulation.now
