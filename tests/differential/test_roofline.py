"""Does the cost of a kernel agree with a roofline, or a pipeline, worked by hand?

Every figure below is written here: of Llama-2-7B at TP8 (hidden 4096, 32 heads of 128, FFN 11008, BF16) each socket
has 4 heads, 512 columns of Q, K and V, and 1376 of the FFN. Fitted figures of a machine are set to round ones, so
that a new fit changes nothing here.
"""

from __future__ import annotations

import pytest

from node.dataflow.compiler import Compiler
from node.dataflow.form import Step
from node.dataflow.graph import Block, Operator
from node.dataflow.kernel import Kernel
from node.dataflow.operators import Matrix, activation, elementwise, gemm
from node.dataflow.program import Program, compile_graph
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.spec import Machine
from node.spec_file import load_machine

FITTED = {"kernel.sync": "4 us", "kernel.launch_ho": "1 us", "kernel.launch_so": "5 us"}
SN40L = load_machine("sn40l-node", FITTED)
A100 = load_machine("dgx-a100", {"compute.efficiency": 0.12, "kernel.launch_so": "11 us", "peer.latency": "1 us"})
SN40L_HBM = 1.8e12 * 0.85  # bytes/s
UNIT = 160 / 1.5976e9  # seconds of a unit of work on an SN40L
A100_HBM = 2.039e12 * 0.85
A100_FLOPS = 108 * 1024 * 2 * 1.41e9 * 0.12
PROMPT = Step(1024, 1024 * 1025 // 2, 1024, 1)
ONE = Step(1, 1000, 1000, 1)  # one sequence decodes a token
LAYER = 2 * (4 * 4096 * 512 + 3 * 4096 * 1376 + 2 * 4096)  # Q K V O, gate up down, two norms
LAYER_MOVES = LAYER + 2 * 2 * 512 * (1000 + 1) + 2 * 4096 + 2 * 4096  # K and V read, a token written; its ends


def llama(machine: Machine, fusion: str) -> Program:
    return compile_graph(decoder(load_shape("llama-2-7b"), 8), machine, 8, fusion, "ho")


def named(kernels: tuple[Kernel, ...], name: str) -> Kernel:
    return next(kernel for kernel in kernels if kernel.name == name)


def on_a100(name: str, step: Step = PROMPT) -> Kernel:
    program = llama(A100, "conventional")
    decoding = step.tokens == step.sequences
    return named(program.decode_kernels(step.tokens, step.context) if decoding else program.prefill_kernels(step), name)


def agrees(found: float, by_hand: float) -> bool:
    return found == pytest.approx(by_hand, rel=1e-9, abs=0)


# SN40L: HBM


def test_a_fused_decode_layer_of_the_sn40l_is_bound_by_hbm() -> None:
    kernel = named(llama(SN40L, "fused").decode_kernels(1, 1000), "layer")
    cost = kernel.cost(ONE)
    assert kernel.hbm.at(ONE) == LAYER_MOVES == 52_676_608
    assert (kernel.repeat, kernel.iterations, cost.bound_by) == (32, 1, "hbm")
    assert agrees(cost.bound, LAYER_MOVES / SN40L_HBM)  # 34.4 us
    # two all-reduces of 8 KiB, each in a hop of 500 ns: 7 x 8192 B sent; 20 stages
    assert agrees(cost.fixed, 1e-6 + 4e-6 + 20 * 100e-9 + 2 * 500e-9)
    assert agrees(cost.link, 2 * 7 * 8192 / 400e9)
    assert agrees(cost.seconds, cost.bound + cost.fixed)


@pytest.mark.parametrize(("batch", "hops", "sent"), [(4, 1, 7), (5, 2, 1.75)])
def test_a_decode_batch_of_five_goes_in_two_hops_though_its_kernels_are_made_for_four(
    batch: int, hops: int, sent: float
) -> None:
    """Of n x 8 KiB a direct all-reduce sends 5.25 times as much more: 172 kB at 4, 215 kB at 5; 200 are worth a hop."""
    step = Step(batch, batch * 400, batch * 400, batch)
    kernel = named(llama(SN40L, "fused").decode_kernels(batch, step.context), "layer")
    assert agrees(kernel.fixed_s, 1e-6 + 4e-6 + 20 * 100e-9 + 2 * hops * 500e-9)
    assert agrees(kernel.cost(step).link, 2 * sent * batch * 8192 / 400e9)
    assert kernel.placement == named(llama(SN40L, "fused").decode_kernels(4, 1600), "layer").placement or hops == 2


def test_a_prompt_goes_in_two_hops_from_its_fifth_token_on() -> None:
    program = llama(SN40L, "unfused")
    for tokens, hops, sent in ((1, 1, 7), (4, 1, 7), (5, 2, 1.75), (1024, 2, 1.75)):
        step = Step(tokens, tokens * (tokens + 1) // 2, tokens, 1)
        kernel = named(program.prefill_kernels(step), "layer.ffn_all_reduce")
        assert agrees(kernel.fixed_s, 5e-6 + 4e-6 + 100e-9 + hops * 500e-9)
        assert agrees(kernel.cost(step).link, sent * tokens * 8192 / 400e9)


def test_an_unfused_projection_of_a_prompt_is_bound_by_hbm_on_the_sn40l() -> None:
    kernel = named(llama(SN40L, "unfused").prefill_kernels(PROMPT), "layer.q_proj")
    moved = 2 * (4096 * 512 + 1024 * 4096 + 1024 * 512)
    # 171 arrays' rows of 6 tokens x 16 of 32 columns x 4096 cycles: 70 042 units, 68 rounds on 1031 of 1040 PCUs
    cycles = 171 * 16 * 4096
    assert -(-cycles // 160) == 70_042 and -(-70_042 // 68) == 1031 and 70_042 / 67 > 1040
    compute = 68 * UNIT
    cost, bounds = kernel.cost(PROMPT), dict(kernel.bounds)
    assert agrees(bounds["compute"].at(PROMPT), compute) and compute < moved / SN40L_HBM
    assert kernel.hbm.at(PROMPT) == moved and cost.bound_by == "hbm"
    assert agrees(cost.seconds, moved / SN40L_HBM + 5e-6 + 4e-6 + 100e-9)  # launched by the host


def test_an_unfused_gate_projection_of_a_prompt_is_bound_by_compute_on_the_sn40l() -> None:
    cost = named(llama(SN40L, "unfused").prefill_kernels(PROMPT), "layer.gate_proj").cost(PROMPT)
    # 171 x 43 x 4096 cycles are 188 237 units: 181 rounds on 1040 PCUs
    assert 180 < 171 * 43 * 4096 / 160 / 1040 < 181
    assert cost.bound_by == "compute" and agrees(cost.bound, 181 * UNIT)
    assert cost.bound > 2 * (4096 * 1376 + 1024 * 4096 + 1024 * 1376) / SN40L_HBM


def test_a_whole_decode_step_is_its_embedding_its_layers_and_its_head() -> None:
    layer = LAYER_MOVES / SN40L_HBM + 8e-6
    embedding = 2 * UNIT  # two stages of a tile; HBM (16 KiB) and the link (56 KiB) take less
    assert embedding > max((2 * 4096 + 2 * 4096) / SN40L_HBM, 7 * 8192 / 400e9)
    head = 2 * (4096 * 4000 + 4096 + 4096 + 32000) / SN40L_HBM  # weights, norm, last token in, all logits out
    ends = embedding + head + 2 * 5e-6 + 2 * 500e-9 + (2 + 3) * 100e-9  # a hop to sum, one to gather
    found = llama(SN40L, "fused").decode(1).run_ps(1000, growth=1, steps=1)
    assert abs(found - (32 * layer + ends) * 1e12) <= 0.5 * (1 + 1000)  # base and slope are whole picoseconds


# SN40L: pipelines


def test_that_layer_is_bound_by_its_pipeline_where_hbm_is_no_bound() -> None:
    slow_launch = {"kernel.launch_ho": "1 ms"}  # so that the layer stays one kernel
    machine = load_machine("sn40l-node", {"hbm.bandwidth": "1e9 TB/s", **slow_launch})
    full = Step(1, 4096, 4096, 1)
    kernel = named(llama(machine, "fused").decode_kernels(1, 4096), "layer")
    # A token is one row of an array's six. Q K V O, scores and values at 4096 tokens: 65 536 cycles, 410 units each;
    # gate, up, down: 43 x 4096 cycles, 1101 units; softmax 3 x 4 x 4096 / 32 cycles, 10 units; a norm, which takes
    # 4096 twice, 2 units; the rotation, two sums, two residuals, SiLU and product one unit each.
    units = {65_536: 410, 176_128: 1101, 1536: 10, 256: 2}
    assert all(-(-cycles // 160) == of_cycles for cycles, of_cycles in units.items())
    of_stages = [410] * 6 + [1101] * 3 + [10, 2, 2] + [1] * 7
    pcus = {rounds: sum(-(-number // rounds) for number in of_stages) for rounds in (5, 6)}
    assert pcus[6] == 6 * 69 + 3 * 184 + 2 + 2 + 7 == 977 and pcus[5] > 1040
    placed = kernel.placement
    assert placed is not None and (placed.pcus, placed.tiles) == (977, 1)
    # norm, Q, rotation, scores, softmax, values, O, sum, add; norm, gate, SiLU, product, down, sum, add
    assert placed.depth == 16
    cost = kernel.cost(full)
    assert cost.bound_by == "compute" and agrees(cost.bound, 16 * 6 * UNIT)


# 48 tokens are 8 rows of arrays, of 2 x 320 cycles with a matrix of 320 x 64 or 64 x 320: 32 units in all
X, H, G, Y = (activation(*sizes) for sizes in (("x", 320), ("h", 64), ("g", 64), ("y", 320)))
UP = gemm("up", X, H, Matrix(320, 64, 2))
ACT = elementwise("act", (H,), (G,), flops=64)  # 48 x 64 / 32 = 96 cycles in all: a unit, of however few tokens
DOWN = gemm("down", G, Y, Matrix(64, 320, 2))
TOKENS = Step(48, 0, 0, 1)
SMALL = {**FITTED, "compute.clock": "1.6 GHz", "hbm.bandwidth": "1e9 TB/s"}  # a unit takes 100 ns


def only(machine: Machine, operators: tuple[Operator, ...], fusion: str, step: Step, repeat: int = 1) -> Kernel:
    (kernel,) = Compiler.of(machine, 1, fusion, "ho").kernels([Block("b", operators, repeat)], step)
    return kernel


@pytest.mark.parametrize(
    ("pcus", "tiles", "rounds", "turns"),
    [  # 32 / T units, one, 32 / T; T + 2 turns of as many rounds as it takes
        (3, 8, 4, 10),  # 1 + 1 + 1 PCUs; 4 tiles would take 6 turns of 8 rounds
        (5, 8, 2, 10),  # 2 + 1 + 2; 6 turns of 4 rounds
        (9, 8, 1, 10),  # 4 + 1 + 4; 6 turns of 2 rounds
        (16, 8, 1, 10),
        (17, 4, 1, 6),  # 8 + 1 + 8
        (33, 2, 1, 4),  # 16 + 1 + 16
        (65, 1, 1, 3),  # 32 + 1 + 32: no stage waits for more than one tile
        (1040, 1, 1, 3),
    ],
)
def test_tiles_go_through_a_pipeline_one_after_another(pcus: int, tiles: int, rounds: int, turns: int) -> None:
    kernel = only(load_machine("sn40l-node", SMALL | {"compute.units": pcus}), (UP, ACT, DOWN), "fused", TOKENS)
    placed, cost = kernel.placement, kernel.cost(TOKENS)
    assert placed is not None and (placed.tiles, placed.depth) == (tiles, 3) and turns == tiles + 3 - 1
    ends, middle = 32 // tiles // rounds, 1
    assert [stage.pcus for stage in placed.stages] == [ends, middle, ends]
    assert cost.bound_by == "compute" and agrees(cost.bound, turns * rounds * 100e-9)
    assert agrees(cost.fixed, 1e-6 + 4e-6 + 3 * 100e-9)
    assert agrees(kernel.cost(Step(24, 0, 0, 1)).bound, cost.bound / 2)  # the same tiles, half as full


@pytest.mark.parametrize(("pmus", "rounds", "label"), [(36, 1, "compute"), (35, 2, "sram"), (18, 2, "sram")])
def test_a_pipeline_with_slow_pmus_is_bound_by_them(pmus: int, rounds: int, label: str) -> None:
    x, h, y = (activation(name, 2560) for name in "xhy")  # of 6 tokens, one tile, 30 720 B each
    stages = [elementwise(name, (a,), (b,), flops=1) for name, a, b in (("to_h", x, h), ("to_y", h, y))]
    machine = load_machine("sn40l-node", SMALL | {"sram.banks": pmus, "sram.bank_bandwidth": "16 B/cycle"})
    step = Step(6, 0, 0, 1)
    kernel = only(machine, tuple(stages), "fused", step)
    # 480 cycles, 3 units each; x and h in 12 + 12 PMUs, y in 12, that pass 2560 B in a unit's time: half in two rounds
    assert kernel.placement is not None and kernel.placement.pmus == 36 / rounds
    assert kernel.cost(step).bound_by == label and agrees(kernel.cost(step).bound, 2 * rounds * 100e-9)


# SN40L: loops


def test_looped_layers_are_launched_once() -> None:
    kernel = named(llama(SN40L, "looped").decode_kernels(1, 1000), "layer x 32")
    cost = kernel.cost(ONE)
    assert (kernel.repeat, kernel.iterations, kernel.hbm.at(ONE)) == (1, 32, LAYER_MOVES)
    assert cost.bound_by == "hbm" and agrees(cost.bound, 32 * LAYER_MOVES / SN40L_HBM)
    assert agrees(cost.fixed, 8e-6) and agrees(cost.link, 32 * 2 * 7 * 8192 / 400e9)


def test_a_loop_fills_its_pipeline_once() -> None:
    machine = load_machine("sn40l-node", SMALL | {"compute.units": 17, "pipeline.stage_latency": "0 s"})
    once = only(machine, (UP, ACT, DOWN), "fused", TOKENS, repeat=5)
    looped = only(machine, (UP, ACT, DOWN), "looped", TOKENS, repeat=5)
    assert (once.repeat, once.iterations, looped.repeat, looped.iterations) == (5, 1, 1, 5)
    assert agrees(once.cost(TOKENS).bound, (4 + 3 - 1) * 100e-9)
    assert agrees(looped.cost(TOKENS).bound, 5 * 4 * 100e-9)  # a tile of 4 enters at each turn
    assert agrees(looped.cost(TOKENS).fixed, 5e-6 + 2 * 100e-9)  # two turns until the first one leaves


def test_a_loop_of_fewer_tiles_than_stages_waits_for_its_last_stage() -> None:
    machine = load_machine("sn40l-node", SMALL | {"compute.units": 65, "pipeline.stage_latency": "0 s"})
    looped = only(machine, (UP, ACT, DOWN), "looped", TOKENS, repeat=5)
    assert looped.placement is not None and (looped.placement.tiles, looped.iterations) == (1, 5)
    assert agrees(looped.cost(TOKENS).bound, 5 * 3 * 100e-9)  # the one tile goes through all three, and enters anew
    assert agrees(looped.cost(TOKENS).fixed, 5e-6)


def test_an_iteration_waits_for_what_the_one_before_makes() -> None:
    looped = only(
        load_machine("sn40l-node", SMALL | {"compute.units": 65}), (UP, ACT, DOWN), "looped", TOKENS, repeat=5
    )
    way = 3 * 100e-9 + 3 * 100e-9  # of one tile through three stages, with the latency of each
    assert looped.cost(TOKENS).bound_by == "latency" and agrees(looped.cost(TOKENS).bound, 5 * way)


# A100: one operator after another on all units


def test_flash_attention_of_a_decode_batch_is_bound_by_hbm_on_the_a100() -> None:
    step = Step(8, 8 * 700, 8 * 700, 8)
    kernel = on_a100("layer.scores..values", step)
    moved = 2 * 2 * 512 * 8 * 700 + 2 * 8 * (512 + 512)  # K and V, the queries in and the values out
    assert agrees(dict(kernel.bounds)["compute"].at(step), (4 * 512 + 5 * 4) * 8 * 700 / A100_FLOPS)
    assert kernel.placement is None and kernel.cost(step).bound_by == "hbm"
    assert agrees(kernel.cost(step).seconds, moved / A100_HBM + 11e-6)


def test_a_gate_projection_of_a_prompt_is_bound_by_compute_on_the_a100() -> None:
    cost = on_a100("layer.gate_proj").cost(PROMPT)
    assert cost.bound_by == "compute" and agrees(cost.seconds, 2 * 1024 * 4096 * 1376 / A100_FLOPS + 11e-6)


def test_an_all_reduce_of_a_prompt_is_bound_by_the_link_on_the_a100() -> None:
    cost = on_a100("layer.ffn_all_reduce").cost(PROMPT)
    sending = 2 * 7 / 8 * 1024 * 4096 * 2 / 300e9  # reduce-scatter and all-gather, a hop each
    assert (cost.bound_by, cost.link) == ("link", cost.bound) and agrees(cost.seconds, sending + 2 * 1e-6 + 11e-6)


def test_the_head_of_a_prompt_works_on_its_last_token_alone() -> None:
    head, norm = (dict(on_a100(f"head.{name}").bounds) for name in ("lm_head", "final_norm"))
    weights, tokens = 2 * 4096 * 4000, 2 * (4096 + 4000)
    assert agrees(head["compute"].at(PROMPT), 2 * 4096 * 4000 / A100_FLOPS)
    assert agrees(head["hbm"].at(PROMPT), (weights + tokens) / A100_HBM)
    assert agrees(norm["hbm"].at(PROMPT), 3 * 2 * 4096 / A100_HBM)  # scales, token in, token out


def test_a_residual_reads_both_that_it_adds() -> None:
    step = Step(64, 64, 64, 64)
    assert agrees(dict(on_a100("layer.ffn_add", step).bounds)["hbm"].at(step), 3 * 64 * 2 * 4096 / A100_HBM)
