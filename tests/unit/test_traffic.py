"""What do kernels move to and from HBM? Worked by hand, for placed kernels and for those of a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.dataflow.attributes import Heads, Norm
from node.dataflow.form import Step
from node.dataflow.graph import Operator
from node.dataflow.operators import (
    Matrix,
    activation,
    attention_scores,
    attention_values,
    elementwise,
    gather,
    gemm,
    kv_append,
    norm,
    softmax,
)
from node.dataflow.traffic import Traffic
from node.spec import Machine
from node.spec_file import load_machine
from tests.unit.network import ACT, DOWN, FOUR, NETWORK, UP, G, H, X, Y, kernels, only

NODE, A100 = load_machine("sn40l-node"), load_machine("dgx-a100")
MANY = Step(tokens=48, pairs=0, context=0, sequences=1)


def moved(*operators: Operator, step: Step = FOUR, part: slice = slice(None), tiles: int = 1, held: float = 1) -> float:
    """HBM bytes of the kernel of ``part`` of a block of ``operators``."""
    inside = range(len(operators))[part]
    traffic = Traffic(operators, [(inside[0], inside[-1])], step)
    return traffic.forms(0, tiles, held).at(step)


def test_a_fused_kernel_moves_its_ends_and_its_weights() -> None:
    assert moved(*NETWORK) == only(NODE, "fused", *NETWORK).hbm.at(FOUR) == 4 * 20 + 4 * 20 + 600 + 600


@pytest.mark.parametrize("machine", [NODE, A100], ids=lambda machine: machine.name)
def test_unfused_kernels_move_every_tensor_twice(machine: Machine) -> None:
    by_hand = [4 * (20 + 60) + 600, 4 * (60 + 60), 4 * (60 + 20) + 600]
    assert [kernel.hbm.at(FOUR) for kernel in kernels(machine, "unfused", *NETWORK)] == by_hand
    assert Traffic(NETWORK, [(0, 2)], FOUR).apart.tolist() == [sum(by_hand)]


def test_a_tensor_that_a_later_kernel_reads_is_written() -> None:
    add = elementwise("add", (H, Y), (activation("z", 30),), flops=1)
    assert moved(*NETWORK, part=slice(0, 2)) == 4 * (20 + 60) + 600  # g, which the next kernel reads, but not h
    assert moved(*NETWORK, add, part=slice(0, 2)) == 4 * (20 + 60 + 60) + 600
    assert moved(*NETWORK, add, part=slice(2, 4)) == 4 * (60 + 60 + 60) + 600
    assert moved(*NETWORK, add) == 4 * (20 + 60) + 1200  # h stays inside


def test_a_tensor_that_a_later_block_reads_is_written() -> None:
    kept = replace(H, kept=True)
    operators = (replace(UP, outputs=(kept,)), replace(ACT, inputs=(kept,)), DOWN)
    assert moved(*operators) == moved(*NETWORK) + 4 * 60
    assert moved(*operators, part=slice(0, 1)) == moved(*NETWORK, part=slice(0, 1))  # written, either way


def test_gpu_kernels_write_what_later_ones_read() -> None:
    add = elementwise("add", (H, Y), (activation("z", 30),), flops=1)  # reads h again, in its own kernel
    found = kernels(A100, "conventional", *NETWORK, add, repeat=3)
    assert [(kernel.name, kernel.repeat) for kernel in found] == [("b.up..act", 3), ("b.down..add", 3)]
    assert [kernel.hbm.at(FOUR) for kernel in found] == [4 * (20 + 60 + 60) + 600, 4 * (60 + 60 + 60) + 600]


def test_a_tensor_read_twice_is_moved_once() -> None:
    assert moved(elementwise("both", (X, X), (H, G), flops=1)) == 4 * (20 + 60 + 60)
    again = elementwise("again", (X, G), (Y,), flops=1)
    assert moved(UP, ACT, again) == 4 * (20 + 20) + 600  # x enters once for both of its readers


def test_the_kv_cache_is_read_per_context_and_written_per_token() -> None:
    scores = attention_scores(X, Y, Heads((0, 0), 5))
    step = Step(tokens=4, pairs=100, context=70, sequences=4)
    assert moved(scores, step=step) == 4 * 20 + 4 * 20 + 70 * 1 * 5 * 2
    assert moved(kv_append(X, Y), step=step) == 2 * 4 * (20 + 20)


def test_scores_and_probabilities_of_a_fused_attention_stay_inside() -> None:
    s, p = (activation(name, 2, per="pairs") for name in "sp")
    heads = Heads((0, 0), 5)
    attention = attention_scores(X, s, heads), softmax(s, p, heads), attention_values(p, Y, heads)
    step = Step(tokens=4, pairs=100, context=70, sequences=4)
    assert moved(*attention, step=step) == 4 * (20 + 20) + 2 * 70 * 5 * 2
    assert moved(*attention, step=step, part=slice(1, 2)) == 2 * 100 * 2 * 2


def test_an_embedding_reads_a_row_per_token_and_not_the_table() -> None:
    table = gather("table", X, Matrix(1000, 10, 2))
    assert moved(table) == moved(table, tiles=4, held=0) == 4 * 20 + 4 * 20
    assert table.weights == 20_000


def test_weights_that_find_no_room_stream_again_with_every_tile() -> None:
    ends = 48 * (20 + 20)
    assert moved(*NETWORK, step=MANY, tiles=8, held=1) == ends + 1200
    assert moved(*NETWORK, step=MANY, tiles=8, held=0.75) == ends + 1200 + 7 * 300
    assert moved(*NETWORK, step=MANY, tiles=8, held=0) == ends + 8 * 1200
    assert moved(*NETWORK, step=MANY, tiles=1, held=0) == ends + 1200


def test_keys_and_values_stream_again_with_every_tile_of_a_sequence() -> None:
    scores = attention_scores(X, Y, Heads((0, 0), 5))
    step = Step(tokens=40, pairs=220, context=40, sequences=4)
    ends, keys = 40 * (20 + 20), 40 * 10
    found = {tiles: moved(scores, step=step, tiles=tiles, held=0) - ends for tiles in (1, 2, 4, 8, 12)}
    assert found == {1: keys, 2: keys, 4: keys, 8: 2 * keys, 12: 3 * keys}  # four: a tile for each sequence
    assert moved(scores, step=step, tiles=12, held=0.5) == ends + 2 * keys


@pytest.mark.parametrize(("pmus", "streams"), [(12, 1 + 7 * 0.2), (13, 1), (1000, 1)])
def test_the_compiler_holds_what_weights_it_can_beside_the_buffers(pmus: int, streams: float) -> None:
    # 8 tiles of 6 tokens: x and h twice 120 + 360 B, g twice 360 B, y twice 120 B: 4 + 3 + 1 PMUs of 240 B.
    # The weights take five more. 4 tiles would take 16 PMUs, and a PMU each for the 4 streams of 2 arrays.
    overrides = {
        "sram.banks": pmus,
        "sram.bank_capacity": "240 B",
        "hbm.bandwidth": "1 MB/s",
        "kernel.launch_ho": "1 s",
    }
    kernel = only(load_machine("sn40l-node", overrides), "fused", *NETWORK, step=MANY)
    assert kernel.placement is not None
    assert kernel.hbm.at(MANY) == pytest.approx(48 * (20 + 20) + 1200 * streams, rel=1e-12)
    assert kernel.placement.resident == pytest.approx(min((pmus - 8) / 5, 1))
    if pmus < 1000:
        assert kernel.placement.tiles == 8


def test_a_loop_holds_the_next_weights_too() -> None:
    overrides = {"sram.bank_capacity": "240 B", "hbm.bandwidth": "1 MB/s", "kernel.launch_ho": "1 s"}
    for pmus, share in ((8 + 10, 1.0), (8 + 9, 0.9)):  # as above: eight hold tiles, five the weights, twice
        machine = load_machine("sn40l-node", overrides | {"sram.banks": pmus})
        (kernel,) = kernels(machine, "looped", *NETWORK, step=MANY, repeat=2)
        assert kernel.placement is not None and (kernel.iterations, kernel.placement.tiles) == (2, 8)
        assert kernel.placement.resident == pytest.approx(share)
        assert kernel.hbm.at(MANY) == pytest.approx(48 * (20 + 20) + 1200 * (1 + 7 * (1 - share)), rel=1e-12)


def test_gpu_weights_that_do_not_fit_are_read_once_per_part_of_the_activations_that_does() -> None:
    fits, small = (load_machine("dgx-a100", {"sram.banks": 6, "sram.bank_capacity": f"{n} B"}) for n in (100, 99))
    steps = {tokens: replace(FOUR, tokens=tokens) for tokens in (1, 7, 8, 14, 15)}
    found = {n: only(small, "unfused", UP, step=step).hbm.at(step) - 80 * n for n, step in steps.items()}
    assert found == {1: 600, 7: 600, 8: 1200, 14: 1200, 15: 1800}  # 594 B hold 7.4 tokens of 80 B
    long = replace(FOUR, tokens=10**6)
    assert only(fits, "unfused", UP, step=long).hbm.at(long) == 80 * 10**6 + 600


def test_weights_that_work_on_few_sequences_are_read_once() -> None:
    last, logits = (activation(name, width, per="sequences") for name, width in (("last", 10), ("logits", 30)))
    head = gemm("head", last, logits, Matrix(10, 30, 2))  # 80 B of activations per sequence
    small = load_machine("dgx-a100", {"sram.banks": 1, "sram.bank_capacity": "99 B"})
    for step, reads in ((replace(FOUR, tokens=1000), 1), (replace(FOUR, sequences=2), 2)):
        assert only(small, "unfused", head, step=step).hbm.at(step) == reads * 600 + step.sequences * 80


def test_the_weights_of_a_norm_are_read_too() -> None:
    assert moved(norm("n", X, Y, Norm(10, 0.0), weight_bytes=2)) == 4 * (20 + 20) + 20
