"""What does a kernel move, what bounds it, and what does it cost beyond its work?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from node.dataflow.graph import Block, Form, Graph, Operator, Step, Tensor
from node.dataflow.kernel import Kernel, build
from node.dataflow.operators import (
    Matrix,
    activation,
    attention_scores,
    collective,
    elementwise,
    gather,
    gemm,
    kv_append,
)
from node.dataflow.program import Program, compile_graph
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import model_names
from node.spec_file import load_machine

NODE, RACK, A100 = (load_machine(name) for name in ("sn40l-node", "sn40l-rack", "dgx-a100"))
# A small network, per token: x (20 B) -> h (60 B) -> g (60 B) -> y (20 B), two weight matrices of 600 B each
X, H, G, Y = (activation(name, width) for name, width in (("x", 10), ("h", 30), ("g", 30), ("y", 10)))
UP = gemm("up", X, H, Matrix(10, 30, 2))
ACT = elementwise("act", (H,), (G,), flops=7)
DOWN = gemm("down", G, Y, Matrix(30, 10, 2))
FOUR = Step(tokens=4, pairs=0, context=0, sequences=1)


def kernel(*operators: Operator, later: str = "") -> Kernel:
    return build("k", Block("k", operators), operators, set(later.split()), launch_s=0.0)


# Traffic, by hand


def test_a_fused_kernel_moves_its_ends_and_its_weights() -> None:
    assert kernel(UP, ACT, DOWN).hbm_bytes(NODE, FOUR) == 4 * 20 + 4 * 20 + 600 + 600


def test_unfused_kernels_move_every_tensor_twice() -> None:
    moved = [kernel(operator).hbm_bytes(NODE, FOUR) for operator in (UP, ACT, DOWN)]
    assert moved == [4 * (20 + 60) + 600, 4 * (60 + 60), 4 * (60 + 20) + 600]


def test_a_tensor_that_a_later_kernel_reads_is_written() -> None:
    assert kernel(UP, ACT).hbm_bytes(NODE, FOUR) == 4 * (20 + 60) + 600
    assert kernel(UP, ACT, later="h").hbm_bytes(NODE, FOUR) == 4 * (20 + 60 + 60) + 600
    assert kernel(UP, ACT, later="g x").hbm_bytes(NODE, FOUR) == 4 * (20 + 60) + 600  # written in any case, or not ours


def test_a_program_knows_which_tensors_are_read_later() -> None:
    add = elementwise("add", (H, Y), (activation("z", 30),), flops=1)  # reads h again, in its own kernel
    graph = Graph("g", (Block("b", (UP, ACT, DOWN, add), repeat=3),), kv_bytes_per_token=0)
    program = compile_graph(graph, A100, 1, "conventional", "so")
    assert [k.name for k in program.kernels] == ["b.up", "b.down"]
    assert [k.hbm_bytes(A100, FOUR) for k in program.kernels] == [4 * (20 + 60 + 60) + 600, 4 * (60 + 60 + 60) + 600]
    assert (program.launches, program.weight_bytes) == (6, 3 * 1200)


def test_a_tensor_read_twice_is_moved_once() -> None:
    both = elementwise("both", (X, X), (H, G), flops=1)
    assert kernel(both).hbm_bytes(NODE, FOUR) == 4 * (20 + 60 + 60)


def test_the_kv_cache_is_read_per_context_and_written_per_token() -> None:
    scores = attention_scores(X, Y, heads=2, kv_heads=1, head_dim=5)
    step = Step(tokens=4, pairs=100, context=70, sequences=4)
    assert kernel(scores).hbm_bytes(NODE, step) == 4 * 20 + 4 * 20 + 70 * 1 * 5 * 2
    assert kernel(kv_append(X, Y)).hbm_bytes(NODE, step) == 2 * 4 * (20 + 20)


def test_an_embedding_reads_a_row_per_token_and_not_the_table() -> None:
    table = gather("table", X, Matrix(1000, 10, 2), width=10)
    assert kernel(table).hbm_bytes(NODE, FOUR) == 4 * 20 + 4 * 20
    assert table.weights == 20_000


def test_weights_that_fit_sram_are_read_once_and_others_once_per_tile_of_activations() -> None:
    fits, small = (load_machine("sn40l-node", {"sram.banks": 6, "sram.bank_capacity": f"{n} B"}) for n in (100, 99))
    fused = kernel(UP, ACT, DOWN)  # of either matrix 600 B; beside it 20 + 60 B of activations per token
    assert {n: fused.hbm_bytes(small, replace(FOUR, tokens=n)) - 40 * n for n in (1, 7, 8, 14, 15)} == {
        1: 1200,
        7: 1200,  # 560 B of 594 B
        8: 2400,
        14: 2400,  # 1120 B of 1188 B
        15: 3600,
    }
    assert fused.hbm_bytes(fits, replace(FOUR, tokens=10**6)) == 40 * 10**6 + 1200
    half = replace(DOWN, weight_read=Form(constant=500))
    assert kernel(UP, ACT, half).hbm_bytes(small, replace(FOUR, tokens=8)) == 8 * 40 + 2 * 600 + 500
    assert kernel(UP, ACT, DOWN, later="h").hbm_bytes(small, replace(FOUR, tokens=7)) == 7 * 100 + 1200


PER_SEQUENCE = [activation(name, width, per="sequences") for name, width in (("last", 10), ("logits", 30))]
HEAD = gemm("head", *PER_SEQUENCE, Matrix(10, 30, 2))  # 600 B; 80 B of activations per sequence


def test_weights_that_work_on_few_sequences_are_read_once() -> None:
    small = load_machine("sn40l-node", {"sram.banks": 1, "sram.bank_capacity": "99 B"})
    assert kernel(HEAD).hbm_bytes(small, replace(FOUR, tokens=1000)) == 600 + 80


def test_weights_that_work_on_many_sequences_are_read_once_per_tile() -> None:
    small = load_machine("sn40l-node", {"sram.banks": 1, "sram.bank_capacity": "99 B"})
    assert kernel(HEAD).hbm_bytes(small, replace(FOUR, sequences=2)) == 2 * 600 + 2 * 80


# Time


def test_a_kernel_takes_its_slowest_bound_and_what_nothing_hides() -> None:
    overrides = {
        "hbm.bandwidth": "1 kB/s",
        "hbm.efficiency": 0.5,
        "sram.banks": 2,
        "sram.bank_bandwidth": "100 B/cycle",
    }
    overrides |= {"compute.clock": "10 Hz", "compute.units": 3, "compute.macs_per_cycle": 5, "compute.efficiency": 0.5}
    overrides |= {"peer.bandwidth": "100 B/s", "peer.latency": "2 s"}
    overrides |= {"kernel.sync": "3 s", "kernel.stage_latency": "5 s"}
    machine = load_machine("sn40l-node", overrides)
    reduced = collective("sum", "all_reduce", Y, Tensor("sum", Y.size))
    fused = replace(kernel(UP, ACT, DOWN, reduced), launch_s=7.0)
    flops = 4 * (2 * 300 + 7 + 2 * 300 + 10)  # 150 FLOP/s
    moved, inside = 2 * 4 * 20 + 1200, 4 * (60 + 60 + 20)  # 500 B/s; 2000 B/s of SRAM
    sent, hops = 80, 2  # of 2 members, in two phases
    cost = fused.cost(machine, FOUR, members=2)
    assert cost.bounds == pytest.approx((flops / 150, moved / 500, (moved + inside) / 2000, sent / 100))
    assert cost.fixed == pytest.approx(7 + 3 + 4 * 5 + hops * 2)
    assert (cost.seconds, cost.link) == pytest.approx((flops / 150 + 34, sent / 100))
    for index, size in enumerate(("flops", "hbm", "sram")):
        heavy = replace(fused, **{size: Form(constant=10**6)})
        bound = 1e6 / 150 if index == 0 else (1e6 + 1200) / 500 if index == 1 else (moved + 1e6) / 2000
        assert heavy.cost(machine, FOUR, 2).seconds == pytest.approx(bound + 34)
    gathered = replace(fused, messages=(("all_gather", Form(constant=10**4)), ("all_gather", Form(constant=10**4))))
    assert gathered.cost(machine, FOUR, 3).seconds == pytest.approx(4e4 / 100 + 30 + 2 * 2)


def test_a_kernel_alone_or_without_collectives_sends_nothing() -> None:
    messages = (("all_reduce", Form(constant=10**6)), ("all_gather", Form(constant=10**6)))
    for found in (replace(kernel(), messages=messages).cost(NODE, FOUR, 1), kernel().cost(NODE, FOUR, 8)):
        assert (found.link, found.fixed) == (0, NODE.kernel.sync)


@cache
def program(machine: str, model: str, degree: int, fusion: str) -> Program:
    graph = decoder(load_shape(model), degree)
    return compile_graph(graph, load_machine(machine), degree, fusion, "ho")


@pytest.mark.parametrize(
    ("machine", "asked", "orchestration", "kernels", "launch"),
    [
        ("sn40l-node", "fused", "ho", 3, "launch_ho"),
        ("sn40l-node", "fused", "so", 3, "launch_so"),
        ("sn40l-node", "conventional", "ho", 20, "launch_so"),
        ("sn40l-node", "unfused", "ho", 25, "launch_so"),
        ("dgx-a100", "fused", "ho", 20, "launch_so"),  # as far as the machine can
        ("dgx-a100", "unfused", "so", 25, "launch_so"),
    ],
)
def test_a_machine_fuses_as_far_as_it_can_and_launches_as_it_can(
    machine: str, asked: str, orchestration: str, kernels: int, launch: str
) -> None:
    spec = load_machine(machine)
    compiled = compile_graph(decoder(load_shape("llama-2-7b"), 8), spec, 8, asked, orchestration)
    assert len(compiled.kernels) == kernels
    assert {k.launch_s for k in compiled.kernels} == {getattr(spec.kernel, launch)}
    assert sum(k.stages * k.repeat for k in compiled.kernels) == 32 * 20 + 5


# For the built-in models, whatever is asked of them

STEPS = st.one_of(
    st.builds(lambda n: Step(n, n * (n + 1) // 2, n, 1), st.integers(1, 40_000)),
    st.builds(lambda b, n: Step(b, b * n, b * n, b), st.integers(1, 512), st.integers(1, 20_000)),
)
LEVELS = st.sampled_from(["fused", "conventional", "unfused"])
SERVED = st.tuples(st.sampled_from(model_names()), st.sampled_from([1, 2, 8, 16]))


@settings(max_examples=150, deadline=None)
@example(name="dgx-a100", served=("llama-3-8b", 1), step=Step(tokens=790, pairs=2370, context=790, sequences=158))
@given(name=st.sampled_from(["sn40l-rack", "dgx-a100"]), served=SERVED, step=STEPS)
def test_fusing_never_moves_more_bytes_nor_other_work(name: str, served: tuple[str, int], step: Step) -> None:
    machine, moved, flops = load_machine(name, {"kernel.fusion": "fused"}), [], []
    for level in ("fused", "conventional", "unfused"):
        kernels = program("sn40l-rack", *served, level).kernels
        moved.append(sum(k.repeat * k.hbm_bytes(machine, step) for k in kernels))
        flops.append(sum(k.repeat * k.flops.at(step) for k in kernels))
    assert moved[0] < moved[1] < moved[2]
    assert flops[1:] == pytest.approx([flops[0]] * 2, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(served=SERVED, level=LEVELS, batch=st.integers(1, 64), context=st.integers(0, 10**6))
def test_the_bounds_of_a_decode_step_are_lines_over_its_context(
    served: tuple[str, int], level: str, batch: int, context: int
) -> None:
    for k in program("sn40l-rack", *served, level).kernels:
        empty = k.cost(RACK, Step(batch, 0, 0, batch), served[1])
        full = k.cost(RACK, Step(batch, context, context, batch), served[1])
        *lines, link = zip(empty.bounds, k.slopes(RACK), strict=True)
        assert [base + slope * context for base, slope in lines] == pytest.approx(full.bounds[:3], rel=1e-9)
        assert link[1] == 0
