"""Does the cost of a kernel agree with a roofline worked by hand?

Every figure below is written here: of Llama-2-7B at TP8 (hidden 4096, 32 heads of 128, FFN 11008, BF16) each socket
has 4 heads, 512 columns of Q, K and V, and 1376 of the FFN. Fitted figures of a machine are set to round ones, so
that a new fit changes nothing here.
"""

from __future__ import annotations

import pytest

from node.dataflow.graph import Step
from node.dataflow.kernel import Kernel
from node.dataflow.program import compile_graph
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.spec import Machine
from node.spec_file import load_machine

SN40L = load_machine(
    "sn40l-node",
    {"kernel.sync": "4 us", "kernel.launch_ho": "1 us", "kernel.launch_so": "5 us", "hbm.efficiency": 0.85},
)
A100 = load_machine("dgx-a100", {"compute.efficiency": 0.12, "kernel.launch_so": "11 us", "peer.latency": "1 us"})
SN40L_HBM = 1.8e12 * 0.85  # bytes/s
SN40L_FLOPS = 1040 * 192 * 2 * 1.5976e9 * 0.9
A100_HBM = 2.039e12 * 0.85
A100_FLOPS = 108 * 1024 * 2 * 1.41e9 * 0.12


def kernel(machine: Machine, fusion: str, name: str, rank: int = 0) -> Kernel:
    program = compile_graph(decoder(load_shape("llama-2-7b"), 8, rank), machine, 8, fusion, "ho")
    return next(k for k in program.kernels if k.name == name)


def agrees(found: float, by_hand: float) -> bool:
    return found == pytest.approx(by_hand, rel=1e-9, abs=0)


def test_a_fused_decode_layer_of_the_sn40l_is_bound_by_hbm() -> None:
    context = 1000
    cost = kernel(SN40L, "fused", "layer").cost(SN40L, Step(1, context, context, 1), 8)
    weights = 2 * (4 * 4096 * 512 + 3 * 4096 * 1376 + 2 * 4096)  # Q K V O, gate up down, two norms
    kv = 2 * 2 * 512 * (context + 1)  # K and V read, one token written
    moved = weights + kv + 2 * 4096 + 2 * 4096  # the layer's input and output
    assert moved == 52_676_608
    # two all-reduces of 8 KiB, each in two phases: two hops of 500 ns, 2 x 7 / 8 x 8192 B sent
    fixed = 1e-6 + 4e-6 + 20 * 100e-9 + 2 * 2 * 500e-9
    assert agrees(cost.fixed, fixed) and agrees(cost.link, 2 * 1.75 * 8192 / 400e9)
    assert agrees(cost.seconds, moved / SN40L_HBM + fixed)


def test_the_work_of_that_layer_is_this_much() -> None:
    context, slow = 1000, {"compute.clock": "1 MHz", "compute.efficiency": 1, "sram.bank_bandwidth": "1e9 B/cycle"}
    machine = load_machine("sn40l-node", slow)
    gemms = 2 * (4 * 4096 * 512 + 3 * 4096 * 1376)
    attention = (2 * 512 + 5 * 4 + 2 * 512) * context  # scores, softmax, values
    norms, rotary, reduced, added = 2 * 4 * 4096, 3 * (512 + 512), 2 * 4096, 2 * 4096
    ffn = 4 * 1376 + 1376  # SiLU, product
    flops = gemms + attention + norms + rotary + reduced + added + ffn
    cost = kernel(machine, "fused", "layer").cost(machine, Step(1, context, context, 1), 8)
    assert agrees(max(cost.bounds), flops / (1040 * 192 * 2 * 1e6))


def test_a_layer_with_slow_pmus_is_bound_by_them() -> None:
    context, batch = 3000, 4
    machine = load_machine("sn40l-node", {"sram.bank_bandwidth": "0.5 B/cycle"})
    cost = kernel(machine, "fused", "layer").cost(machine, Step(batch, context, context, batch), 8)
    weights = 2 * (4 * 4096 * 512 + 3 * 4096 * 1376 + 2 * 4096)
    moved = weights + 2 * 2 * 512 * (context + batch) + batch * 2 * (4096 + 4096)
    hidden = (3 + 1 + 3) * 4096  # norm, projection and its sum in each half, and the residual between the halves
    heads, ffn = 6 * 512, 4 * 1376  # Q K V, rotated Q K, attended; gate, up, SiLU, product
    inside = 2 * batch * (hidden + heads + ffn) + 2 * context * 2 * 4  # and scores, probabilities of 4 heads
    assert agrees(max(cost.bounds), (moved + inside) / (1040 * 0.5 * 1.5976e9))


def test_an_unfused_projection_of_a_prompt_is_bound_by_hbm_on_the_sn40l() -> None:
    tokens = 1024
    step = Step(tokens, tokens * (tokens + 1) // 2, tokens, 1)
    cost = kernel(SN40L, "unfused", "layer.q_proj").cost(SN40L, step, 8)
    moved = 2 * (4096 * 512 + tokens * 4096 + tokens * 512)
    compute = 2 * tokens * 4096 * 512 / SN40L_FLOPS
    assert agrees(cost.bounds[0], compute) and compute < moved / SN40L_HBM
    assert agrees(cost.seconds, moved / SN40L_HBM + 5e-6 + 4e-6 + 100e-9)  # launched by the host


def test_flash_attention_of_a_decode_batch_is_bound_by_hbm_on_the_a100() -> None:
    batch, context = 8, 8 * 700
    cost = kernel(A100, "conventional", "layer.scores").cost(A100, Step(batch, context, context, batch), 8)
    moved = 2 * 2 * 512 * context + 2 * batch * (512 + 512)  # K and V, the queries in and the values out
    assert agrees(cost.bounds[0], (4 * 512 + 5 * 4) * context / A100_FLOPS)
    assert agrees(cost.seconds, moved / A100_HBM + 11e-6)


def test_a_gate_projection_of_a_prompt_is_bound_by_compute_on_the_a100() -> None:
    tokens = 1024
    step = Step(tokens, tokens * (tokens + 1) // 2, tokens, 1)
    cost = kernel(A100, "conventional", "layer.gate_proj").cost(A100, step, 8)
    assert agrees(cost.seconds, 2 * tokens * 4096 * 1376 / A100_FLOPS + 11e-6)


def test_an_all_reduce_of_a_prompt_is_bound_by_the_link_on_the_a100() -> None:
    tokens = 1024
    step = Step(tokens, tokens * (tokens + 1) // 2, tokens, 1)
    cost = kernel(A100, "conventional", "layer.ffn_all_reduce").cost(A100, step, 8)
    sending = 2 * 7 / 8 * tokens * 4096 * 2 / 300e9  # reduce-scatter and all-gather, a hop each
    assert agrees(cost.seconds, sending + 2 * 1e-6 + 11e-6)


def test_the_head_of_a_prompt_works_on_its_last_token_alone() -> None:
    step = Step(1024, 1024 * 1025 // 2, 1024, 1)
    head, norm = (kernel(A100, "conventional", f"head.{name}") for name in ("lm_head", "final_norm"))
    weights, tokens = 2 * 4096 * 4000, 2 * (4096 + 4000)
    assert agrees(head.cost(A100, step, 8).bounds[0], 2 * 4096 * 4000 / A100_FLOPS)
    assert agrees(head.cost(A100, step, 8).bounds[1], (weights + tokens) / A100_HBM)
    assert agrees(norm.cost(A100, step, 8).bounds[1], 3 * 2 * 4096 / A100_HBM)  # scales, token in, token out


def test_a_residual_reads_both_that_it_adds() -> None:
    cost = kernel(A100, "conventional", "layer.ffn_add").cost(A100, Step(64, 64, 64, 64), 8)
    assert agrees(cost.bounds[1], 3 * 64 * 2 * 4096 / A100_HBM)


def test_a_whole_decode_step_is_its_embedding_its_layers_and_its_head() -> None:
    context = 1000
    program = compile_graph(decoder(load_shape("llama-2-7b"), 8), SN40L, 8, "fused", "ho")
    layer = 52_676_608 / SN40L_HBM + 9e-6
    embedding = (2 * 4096 + 2 * 4096) / SN40L_HBM  # a row of the table, its sum out; sending takes less
    head = 2 * (4096 * 4000 + 4096 + 4096 + 32000) / SN40L_HBM  # weights, norm, last token in, all logits out
    ends = embedding + head + 2 * 5e-6 + 3 * 500e-9 + (2 + 3) * 100e-9
    by_hand = (32 * layer + ends) * 1e12
    assert embedding < 1.75 * 8192 / 400e9  # the link bounds the embedding after all
    by_hand += (1.75 * 8192 / 400e9 - embedding) * 1e12
    found = program.decode(1).run_ps(context, growth=1, steps=1)
    assert abs(found - by_hand) <= 0.5 * (1 + context)  # base and slope are whole picoseconds
