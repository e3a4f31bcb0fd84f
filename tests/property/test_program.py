"""Is the closed form of a decode run the sum of its steps, and each step what its kernels cost?

Base and slope of a segment are whole picoseconds, so a step at ``context`` may be off by half a picosecond, and half
a picosecond more for each token since the segment's first.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.decode import DecodeCost, Segment, slowest
from node.dataflow.graph import Form, Step
from node.dataflow.kernel import Kernel
from node.dataflow.program import Program, compile_graph
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.spec import Machine
from node.spec_file import load_machine

BATCHES, CONTEXTS = st.integers(1, 64), st.integers(0, 200_000)

# Any segments at all: the arithmetic alone

ROWS = st.tuples(st.integers(1, 300), st.integers(1, 10**6), st.integers(0, 10**4))
COSTS = st.lists(ROWS, max_size=4, unique_by=lambda row: row[0]).map(
    lambda rows: DecodeCost((Segment(0, 900, 7), *(Segment(*row) for row in sorted(rows))), link_ps=1)
)
RUNS = st.tuples(st.integers(0, 400), st.integers(0, 9), st.integers(1, 120))


def step_ps(cost: DecodeCost, context: int) -> int:
    segment = cost.segments[bisect_right([s.first for s in cost.segments], context) - 1]
    return segment.base + segment.slope * (context - segment.first)


@settings(deadline=None, max_examples=200)
@given(cost=COSTS, runs=st.lists(RUNS, min_size=1, max_size=6))
def test_a_run_is_the_sum_of_its_steps_alone_and_among_many(cost: DecodeCost, runs: list[tuple[int, int, int]]) -> None:
    sums = [sum(step_ps(cost, context + k * growth) for k in range(steps)) for context, growth, steps in runs]
    assert [cost.run_ps(*run) for run in runs] == sums
    columns = [np.array(column, dtype=np.int64) for column in zip(*runs, strict=True)]
    assert cost.runs_ps(*columns).tolist() == sums
    context, growth, steps = runs[0]
    assert sum(cost.run_ps(context + k * growth, 7, 1) for k in range(steps)) == sums[0]


@settings(deadline=None, max_examples=200)
@given(cost=COSTS, run=RUNS, share=st.fractions(-1, 2), off=st.integers(-1, 1))
def test_a_time_is_reached_after_the_fewest_steps(
    cost: DecodeCost, run: tuple[int, int, int], share: float, off: int
) -> None:
    context, growth, steps = run
    whole = cost.run_ps(*run)
    ends = [cost.run_ps(context, growth, count) for count in range(1, steps + 1)]
    for elapsed in (int(share * whole), min(ends, key=lambda end: abs(end - share * whole)) + off):
        fewest = next((count for count, end in enumerate(ends, 1) if end >= elapsed), steps)
        assert cost.steps_until(elapsed, *run) == fewest


@settings(deadline=None, max_examples=200)
@given(costs=st.lists(COSTS, min_size=1, max_size=4), contexts=st.lists(st.integers(0, 10**6), min_size=1, max_size=9))
def test_members_that_step_together_take_what_the_slowest_takes(costs: list[DecodeCost], contexts: list[int]) -> None:
    together = slowest(costs)
    firsts = [segment.first for segment in together.segments]
    assert firsts == sorted(set(firsts)) and firsts[0] == 0
    for context in {*contexts, *(max(0, first + off) for first in firsts for off in (-1, 0, 1))}:
        assert step_ps(together, context) == max(step_ps(cost, context) for cost in costs)
    assert slowest([replace(cost, link_ps=link) for link, cost in enumerate(costs)]).link_ps == len(costs) - 1


# Any kernels at all: segments are the maximum of their bounds

UNIT = load_machine(  # 1 TFLOP/s, 1 TB/s of HBM, 2 TB/s of SRAM, 1 GB/s between sockets
    "sn40l-node",
    {
        "compute.units": 500,
        "compute.macs_per_cycle": 1,
        "compute.clock": "1 GHz",
        "compute.efficiency": 1,
        "hbm.bandwidth": "1 TB/s",
        "hbm.efficiency": 1,
        "sram.banks": 2000,
        "sram.bank_bandwidth": "1 B/cycle",
        "sram.bank_capacity": "1 kB",
        "peer.bandwidth": "1 GB/s",
    },
)


def forms(*names: str) -> st.SearchStrategy[Form]:
    most = {"constant": 10**9, "tokens": 10**7, "pairs": 10**5, "context": 10**5, "sequences": 10**6}
    return st.builds(Form, **{name: st.integers(0, most[name]) for name in names})


KERNELS = st.builds(
    Kernel,
    name=st.just("k"),
    repeat=st.integers(1, 40),
    stages=st.integers(1, 20),
    flops=forms("constant", "tokens", "pairs", "sequences"),
    hbm=forms("constant", "tokens", "context"),
    sram=forms("constant", "pairs"),
    weights=st.lists(st.tuples(st.sampled_from([900, 10**6]), st.integers(0, 9999)), max_size=2).map(tuple),
    messages=st.lists(st.tuples(st.sampled_from(["all_reduce", "all_gather"]), forms("tokens")), max_size=2).map(tuple),
    launch_s=st.just(1e-6),
)


def exact_ps(program: Program, step: Step, decode: bool = True) -> tuple[float, float]:
    """Time and link time of a pass; in decode, collectives go the way that is best at no context."""
    time = link = 0.0
    for k in program.kernels:
        found = k.cost(program.machine, step, program.members)
        ways = k.cost(program.machine, replace(step, pairs=0, context=0), program.members) if decode else found
        time += k.repeat * (max(*found.bounds[:3], ways.link) + ways.fixed)
        link += k.repeat * ways.link
    return time * 1e12, link * 1e12


def check_segments(program: Program, batch: int, contexts: list[int]) -> None:
    cost = program.decode(batch)
    segments = cost.segments
    assert segments[0].first == 0
    for segment, following in pairwise(segments):
        assert segment.first < following.first and segment.slope <= following.slope  # convex
        length = following.first - segment.first
        assert abs(segment.base + segment.slope * length - following.base) <= length / 2 + following.slope + 1
        contexts = [*contexts, following.first - 1, following.first, following.first + 1]
    for context in contexts:
        time, link = exact_ps(program, Step(batch, context, context, batch))
        first = max(segment.first for segment in segments if segment.first <= context)
        assert abs(cost.run_ps(context, 0, 1) - time) <= 0.5 + (context - first) / 2 + 1e-9 * time
        assert abs(cost.link_ps - link) <= 0.5 + 1e-9 * link


@settings(deadline=None, max_examples=200)
@given(kernels=st.lists(KERNELS, min_size=1, max_size=4), batch=BATCHES, contexts=st.lists(CONTEXTS, max_size=4))
def test_a_step_takes_the_sum_of_its_kernels_slowest_bounds(
    kernels: list[Kernel], batch: int, contexts: list[int]
) -> None:
    check_segments(Program("p", UNIT, 8, tuple(kernels), 0, 0, None), batch, contexts)


def test_four_bounds_that_take_turns_are_four_segments() -> None:
    # ns at context c: link 7 x 500 B; compute 2999.5 + c; HBM 1999.4 + 2 c; SRAM half of that and of 3 c more
    flops, hbm = Form(constant=2_999_500, pairs=1000), Form(constant=1_999_400, context=2000)
    sram, link = Form(pairs=3000), (("all_gather", Form(constant=500)),)
    kernel = Kernel("k", 2, 1, flops, hbm, sram, weights=(), messages=link, launch_s=0)
    segments = Program("p", UNIT, 8, (kernel,), 0, 0, None).decode(1).segments
    assert [(s.first, s.slope) for s in segments] == [(0, 0), (501, 2000), (1001, 4000), (2000, 5000)]
    even = Kernel("k", 1, 1, Form(pairs=1000), Form(context=2000), Form(), (), messages=(), launch_s=0)
    segments = Program("p", UNIT, 8, (even,), 0, 0, None).decode(1).segments
    assert [s.slope for s in segments] == [2000]  # two bounds are nothing at no context; the steeper counts at once


# The built-in models on machines that are short of this or that

LEVELS = st.sampled_from(["fused", "conventional", "unfused"])
MODELS = st.sampled_from([("llama-2-7b", 8), ("llama-3-8b", 8), ("llama-3-70b", 8), ("mistral-7b", 1)])
SHORTAGES = st.fixed_dictionaries(
    {},
    optional={
        "compute.efficiency": st.sampled_from(["0.2 %", "0.5 %", "1 %", "2 %"]),
        "hbm.bandwidth": st.sampled_from(["20 GB/s", "400 GB/s"]),
        "sram.bank_bandwidth": st.sampled_from(["1 B/cycle", "3 B/cycle"]),
        "sram.bank_capacity": st.sampled_from(["1 KiB", "40 KiB"]),
        "peer.bandwidth": st.sampled_from(["200 MB/s", "1 GB/s", "20 GB/s"]),
    },
)


@cache
def graph(model: str, degree: int):
    return decoder(load_shape(model), degree)


def compiled(machine: Machine, served: tuple[str, int], level: str) -> Program:
    return compile_graph(graph(*served), machine, served[1], level, "ho")


@settings(deadline=None, max_examples=80)
@given(
    short=SHORTAGES,
    served=MODELS,
    level=LEVELS,
    batches=st.lists(BATCHES, min_size=1, max_size=2),
    contexts=st.lists(CONTEXTS, max_size=4),
)
def test_a_step_of_a_model_takes_the_sum_of_its_kernels_slowest_bounds(
    short: dict[str, object], served: tuple[str, int], level: str, batches: list[int], contexts: list[int]
) -> None:
    program = compiled(load_machine("sn40l-node", short), served, level)
    for batch in batches:
        check_segments(program, batch, contexts)


def test_a_model_on_a_starved_machine_has_three_segments() -> None:
    starved = {"compute.efficiency": 0.00723, "sram.bank_bandwidth": "4.21 B/cycle", "peer.bandwidth": "0.65 GB/s"}
    segments = compiled(load_machine("sn40l-node", starved), ("llama-3-8b", 8), "fused").decode(1).segments
    assert len(segments) == 3  # link, then HBM, then compute


@settings(deadline=None, max_examples=60)
@given(short=SHORTAGES, served=MODELS, level=LEVELS, lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=4))
def test_a_prefill_is_the_sum_of_its_kernels_rounded_once(
    short: dict[str, object], served: tuple[str, int], level: str, lengths: list[int]
) -> None:
    program = compiled(load_machine("sn40l-node", short), served, level)
    for count in (1, len(lengths), 1):  # the same again: nothing is mixed up
        chosen = lengths[:count]
        step = Step(sum(chosen), sum(n * (n + 1) // 2 for n in chosen), sum(chosen), count)
        assert program.prefill(step) == pytest.approx(exact_ps(program, step, decode=False), rel=1e-12, abs=0.51)
        assert all(type(value) is int for value in program.prefill(step))


# A better machine is never slower


UNITS = {
    "compute.units": "",
    "compute.clock": " Hz",
    "sram.banks": "",
    "sram.bank_bandwidth": " B/cycle",
    "sram.bank_capacity": " B",
    "hbm.bandwidth": " B/s",
    "peer.bandwidth": " B/s",
}


@settings(deadline=None, max_examples=120)
@given(
    short=SHORTAGES,
    key=st.sampled_from(list(UNITS)),
    factor=st.integers(2, 20),
    served=MODELS,
    level=LEVELS,
    run=st.tuples(BATCHES, CONTEXTS, st.integers(1, 200)),
)
def test_more_of_anything_never_makes_a_pass_slower(
    short: dict[str, object], key: str, factor: int, served: tuple[str, int], level: str, run: tuple[int, int, int]
) -> None:
    before = load_machine("sn40l-node", short)
    table, name = key.split(".")
    more = getattr(getattr(before, table), name) * factor
    after = load_machine("sn40l-node", {**short, key: f"{more:.0f}{UNITS[key]}"})
    slow, quick = (compiled(machine, served, level) for machine in (before, after))
    batch, context, steps = run
    for step in (Step(context + 1, (context + 1) * 99, context + 1, batch), Step(batch, context, context, batch)):
        assert quick.prefill(step)[0] <= slow.prefill(step)[0]
    rounding = sum(1 + context + k * batch for k in range(steps))  # half a ps per token on either machine
    times = [program.decode(batch).run_ps(context, batch, steps) for program in (quick, slow)]
    assert times[0] <= times[1] + rounding


@pytest.mark.parametrize(
    ("key", "worse", "better", "batch"),
    [
        ("peer.latency", "500 ns", "400 ns", 4),
        ("hbm.bandwidth", "1.86 TB/s", "1.9 TB/s", 120),
    ],
)
def test_a_machine_a_little_better_is_not_slower(key: str, worse: str, better: str, batch: int) -> None:
    slow, quick = (
        compiled(load_machine("sn40l-node", {key: figure}), ("llama-2-7b", 8), "fused").decode(batch)
        for figure in (worse, better)
    )
    assert quick.run_ps(20 * batch, batch, 1) <= slow.run_ps(20 * batch, batch, 1)
