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
from hypothesis import example, given, settings
from hypothesis import strategies as st

from node.dataflow.decode import DecodeCost, Segment, slowest
from node.dataflow.form import Form, Step
from node.dataflow.graph import Block, Graph
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

UNIT = load_machine("sn40l-node")


def forms(*names: str) -> st.SearchStrategy[Form]:
    """Seconds that are linear in a step."""
    most = {"constant": 1e-3, "tokens": 1e-5, "pairs": 1e-7, "context": 1e-7, "sequences": 1e-6}
    return st.builds(Form, **{name: st.floats(0, most[name]) for name in names})


def kernel_of(bounds: list[Form], link: Form, fixed_s: float = 1e-6, repeat: int = 1, iterations: int = 1) -> Kernel:
    labels = [("hbm", form) for form in bounds] + [("link", link)]
    return Kernel(Block("b", ()), "k", repeat, iterations, (), tuple(labels), fixed_s, Form(), Form(), link)


KERNELS = st.builds(
    kernel_of,
    st.lists(forms("constant", "tokens", "pairs", "context", "sequences"), min_size=1, max_size=4),
    forms("tokens"),
    st.floats(0, 1e-5),
    st.integers(1, 40),
    st.integers(1, 3),
)


class Given:
    """A compiler that has these kernels for everything."""

    def __init__(self, *made: Kernel) -> None:
        self.made = made

    def direct(self, blocks: object, step: Step) -> frozenset[str]:
        return frozenset()

    def kernels(self, blocks: object, step: Step, direct: frozenset[str]) -> tuple[Kernel, ...]:
        return self.made


def program_of(*kernels: Kernel) -> Program:
    return Program(Graph("p", ()), Given(*kernels))  # type: ignore[arg-type]


def exact_ps(kernels: tuple[Kernel, ...], step: Step) -> tuple[float, float]:
    """Time and link time of a pass."""
    costs = [(kernel.repeat, kernel.cost(step)) for kernel in kernels]
    return tuple(sum(repeat * part for repeat, part in parts) * 1e12 for parts in (
        [(repeat, cost.seconds) for repeat, cost in costs], [(repeat, cost.link) for repeat, cost in costs]
    ))  # fmt: skip


def check_segments(program: Program, batch: int, contexts: list[int]) -> None:
    cost = program.decode(batch)
    segments = cost.segments
    assert segments[0].first == 0
    assert all(segment.first < following.first for segment, following in pairwise(segments))
    contexts = [*contexts, *(s.first + off for s in segments for off in (-1, 0, 1) if 0 < s.first < 10**8)]
    for context in contexts:
        time, link = exact_ps(program.decode_kernels(batch, context), Step(batch, context, context, batch))
        first = max(segment.first for segment in segments if segment.first <= context)
        assert abs(cost.run_ps(context, 0, 1) - time) <= 0.5 + (context - first) / 2 + 1e-9 * time
        assert cost.link_ps >= link * (1 - 1e-9) - 0.5


@settings(deadline=None, max_examples=200)
@given(kernels=st.lists(KERNELS, min_size=1, max_size=4), batch=BATCHES, contexts=st.lists(CONTEXTS, max_size=4))
@example(kernels=[kernel_of([Form(context=5e-324)], Form(tokens=4e-6))], batch=1, contexts=[])  # they never meet
def test_a_step_takes_the_sum_of_its_kernels_slowest_bounds(
    kernels: list[Kernel], batch: int, contexts: list[int]
) -> None:
    program = program_of(*kernels)
    check_segments(program, batch, contexts)
    slopes = [segment.slope for segment in program.decode(batch).segments]
    assert slopes == sorted(slopes)  # of one set of kernels: convex


def test_four_bounds_that_take_turns_are_four_segments() -> None:
    # ns at context c: link 3500; compute 2999.5 + c; HBM 1999.4 + 2 c; PMUs 2.5 c
    bounds = [Form(constant=2.9995e-6, pairs=1e-9), Form(constant=1.9994e-6, context=2e-9), Form(pairs=2.5e-9)]
    segments = program_of(kernel_of(bounds, Form(constant=3.5e-6), repeat=2)).decode(1).segments
    assert [(s.first, s.slope) for s in segments] == [(0, 0), (501, 2000), (1001, 4000), (3999, 5000)]
    even = kernel_of([Form(pairs=1e-9), Form(context=2e-9)], Form())
    segments = program_of(even).decode(1).segments
    assert [s.slope for s in segments] == [2000]  # two bounds are nothing at no context; the steeper counts at once


@settings(deadline=None, max_examples=100)
@given(kernels=st.lists(KERNELS, min_size=1, max_size=3), share=st.floats(0.05, 1), context=CONTEXTS)
def test_with_less_of_hbm_nothing_takes_less_time_and_only_hbm_more(
    kernels: list[Kernel], share: float, context: int
) -> None:
    program, step = program_of(*kernels), Step(3, context, context, 3)
    assert program.decode(3, share).run_ps(context, 0, 1) >= program.decode(3).run_ps(context, 0, 1)
    assert program.prefill(step, share)[0] >= program.prefill(step)[0]
    assert program.prefill(step, share)[1] == program.prefill(step)[1]
    slower = program_of(
        *(
            replace(
                kernel, bounds=tuple((label, form * {"hbm": 1 / share}.get(label, 1)) for label, form in kernel.bounds)
            )
            for kernel in kernels
        )
    )
    expected = slower.decode(3).run_ps(context, 0, 1)
    assert abs(program.decode(3, share).run_ps(context, 0, 1) - expected) <= 1 + context


def test_what_a_rounded_slope_is_off_makes_no_step_faster_beside_a_copy() -> None:
    program = program_of(kernel_of([Form(constant=1e-6)], Form(context=100.6e-12)))  # the link counts from 9,941 on
    alone, beside = program.decode(1), program.decode(1, 0.5)  # ... and from 19,881
    assert all(beside.run_ps(c, 0, 1) >= alone.run_ps(c, 0, 1) for c in range(0, 200_000, 997))
    assert beside.run_ps(0, 0, 1) == 2 * alone.run_ps(0, 0, 1) - 1_000_000


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


@settings(deadline=None, max_examples=60)
@given(short=SHORTAGES, served=MODELS, level=LEVELS, lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=4))
def test_a_prefill_is_the_sum_of_its_kernels_rounded_once(
    short: dict[str, object], served: tuple[str, int], level: str, lengths: list[int]
) -> None:
    program = compiled(load_machine("sn40l-node", short), served, level)
    for count in (1, len(lengths), 1):  # the same again: nothing is mixed up
        chosen = lengths[:count]
        step = Step(sum(chosen), sum(n * (n + 1) // 2 for n in chosen), sum(chosen), count)
        assert program.prefill(step) == pytest.approx(
            exact_ps(program.prefill_kernels(step), step), rel=1e-12, abs=0.51
        )
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


POWERS = st.integers(0, 13).map(lambda n: 2**n)  # shapes that kernels are made for, rather than used at


@settings(deadline=None, max_examples=60)
@example(
    short={"compute.efficiency": "0.2 %", "peer.bandwidth": "200 MB/s", "sram.bank_capacity": "1 KiB"},
    key="sram.banks",
    factor=2,
    served=("llama-2-7b", 8),
    level="fused",
    shape=(512, 1, 1),
)
@given(
    short=SHORTAGES,
    key=st.sampled_from(list(UNITS)),
    factor=st.integers(2, 20),
    served=MODELS,
    level=LEVELS,
    shape=st.tuples(POWERS, POWERS, st.sampled_from([1, 4, 64])),
)
def test_more_of_anything_never_makes_a_pass_slower(
    short: dict[str, object], key: str, factor: int, served: tuple[str, int], level: str, shape: tuple[int, int, int]
) -> None:
    before = load_machine("sn40l-node", short)
    table, name = key.split(".")
    more = getattr(getattr(before, table), name) * factor
    after = load_machine("sn40l-node", {**short, key: f"{more:.0f}{UNITS[key]}"})
    slow, quick = (compiled(machine, served, level) for machine in (before, after))
    tokens, seen, batch = shape
    step = Step(tokens * batch, tokens * seen * batch, tokens * batch, batch)
    assert quick.prefill(step)[0] <= slow.prefill(step)[0]
    context = batch * 512
    times = [program.decode(batch).run_ps(context, 0, 1) for program in (quick, slow)]
    assert times[0] <= times[1] + 1 + context  # half a ps per token on either machine


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
