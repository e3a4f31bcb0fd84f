"""Is the earliest beginning of a prefill beside the copy of its weights what a walk from launch to launch says?"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.arrival import ahead_ps
from node.dataflow.form import Step, causal_pairs
from node.dataflow.fusion import LEVELS
from node.dataflow.program import Program, compile_graph
from node.dataflow.schedule import schedule
from node.functional.planned import weight_layout
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import Shape
from node.request import Request
from node.spec import Machine
from node.spec_file import load_machine
from node.units import PS_PER_S
from tests.property.test_simulation import SHAPES

TIED = Shape("tied", 5, 96, 6, 2, 16, 200, 3000, 512, tied_embeddings=True)
MODELS = [*SHAPES, TIED, *map(load_shape, ("llama-2-7b", "falcon-40b", "bloom-176b", "llava-1.5-7b"))]
MACHINES = {
    "sn40l": load_machine("sn40l-node"),
    "slow kernels": load_machine("sn40l-node", {"kernel.sync": "400 us"}),
    "quick copies": load_machine("sn40l-node", {"ddr.bandwidth": "1.2 TB/s"}),
    "gpu": load_machine("dgx-a100", {"host_link.sharing": "per_socket"}),
}
LENGTHS = st.sampled_from([1, 7, 128, 700, 3000])


@cache
def compiled(machine: str, model: int, degree: int, rank: int, level: str) -> Program:
    return compile_graph(decoder(MODELS[model], degree, rank, 2), MACHINES[machine], degree, level, "ho")


def walk(program: Program, machine: Machine, degree: int, step: Step, share: float) -> list[tuple[float, float]]:
    """Of each launch in order: when after the copy's beginning its weights are there, and how long it takes (s)."""
    layout = weight_layout(program.graph)
    ends = {name: held.offset + held.operator.weights for name, held in layout.items()}
    rate = machine.copy_bytes_per_s(degree)
    found = []
    for launch in schedule(program.prefill_kernels(step), step).launches:
        kernel = launch.kernel
        there = max((ends[symbol] for symbol in launch.weights.values()), default=0) / rate
        found.append((there, kernel.cost(step, share).seconds / kernel.iterations))
    return found


@settings(max_examples=150, deadline=None)
@given(
    machine=st.sampled_from(sorted(MACHINES)),
    model=st.integers(0, len(MODELS) - 1),
    cut=st.sampled_from([(1, 0), (2, 1), (4, 3), (8, 0), (8, 7)]),
    level=st.sampled_from(LEVELS),
    lengths=st.lists(LENGTHS, min_size=1, max_size=3),
)
def test_begun_at_the_earliest_it_ends_like_one_that_begins_at_once_and_stalls(machine, model, cut, level, lengths):
    degree, rank = cut
    program, of = compiled(machine, model, degree, rank, level), MACHINES[machine]
    tokens, pairs = sum(lengths), sum(causal_pairs(length, None) for length in lengths)
    step, share = Step(tokens, pairs, tokens, len(lengths)), of.hbm_share(degree)
    launches = walk(program, of, degree, step, share)
    end = 0.0
    for there, took in launches:
        end = max(end, there) + took
    copied, alone = program.weight_bytes / of.copy_bytes_per_s(degree), sum(took for _, took in launches)
    begins = copied - ahead_ps(program, step, share, of.copy_bytes_per_s(degree)) / PS_PER_S
    looped = any(kernel.iterations > 1 for kernel in program.prefill_kernels(step))
    if looped:  # the next iteration's weights are there, too, and nothing is counted on that comes before a loop
        assert end - alone - 1e-12 <= begins <= copied
    else:
        assert begins + alone == pytest.approx(end, abs=2e-12, rel=1e-12)
    now = begins
    for there, took in launches:  # by itself: no launch is ahead of its weights
        assert now >= there - 2e-12 or looped
        now += took


@pytest.mark.parametrize("level", LEVELS)
def test_a_loop_has_the_next_iterations_weights_in_time(level):
    """Iteration by iteration, without its launch and filling: the bound that it is held to."""
    machine, step = MACHINES["slow kernels"], Step(128, 128 * 129 // 2, 128, 1)
    program = compiled("slow kernels", 3, 8, 0, level)
    share, rate = machine.hbm_share(8), machine.copy_bytes_per_s(8)
    begins = program.weight_bytes / rate - ahead_ps(program, step, share, rate) / PS_PER_S
    kernels = program.prefill_kernels(step)
    if level != "looped":
        assert all(kernel.iterations == 1 for kernel in kernels)
        return
    loop = next(kernel for kernel in kernels if kernel.iterations > 1)
    before = sum(k.repeat * k.cost(step, share).seconds for k in kernels[: kernels.index(loop)])
    blocks = {block.name: sum(op.weights for op in block.operators) for block in program.graph.blocks}
    each = loop.cost(step, share).bound / loop.iterations
    for iteration in range(loop.iterations):
        needed = blocks["embedding"] + min(iteration + 2, loop.iterations) * blocks["layer"]
        assert begins + before + iteration * each >= needed / rate - 2e-12


@settings(max_examples=60, deadline=None)
@given(
    machine=st.sampled_from(["sn40l-node", "dgx-a100"]),
    degree=st.sampled_from([8, 4, 2]),
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=4),
    level=st.sampled_from(LEVELS),
    prefetch=st.booleans(),
    shape=st.sampled_from(SHAPES),
)
def test_it_is_never_later_than_without_nor_sooner_than_copy_or_prefill(
    deploy, simulate, *, machine, degree, lengths, level, prefetch, shape
):
    given = {"machine": machine, "experts": ((shape.name, 2),), "shapes": SHAPES, "degree": degree, "slots": 2}
    given |= {"call_overhead": "none", "fusion": level, "kv_reserve": 2**26, "prefetch": prefetch}
    given |= {"numbers": {"host_link.sharing": "per_socket"} if machine == "dgx-a100" else {}}
    requests = [Request(number, 0, length, 1, 0) for number, length in enumerate(lengths)]
    on, off = (simulate(deploy(**given, partial=partial), requests).row(0).charges for partial in (True, False))
    copy, prefill = off["switch"], off["prefill"]
    assert max(copy, prefill) < on["switch"] + on["prefill"] <= copy + prefill
    assert on["switch"] < copy
