"""Are the figures of a pass those of its kernels, its phase and its memory plan?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.kernels import TOKENS, Asked, Memory, pass_of
from node.dataflow.form import Form, Step
from node.models.hugging_face import load_shape
from node.spec_file import load_machine

NODE, SOCKET = load_machine("sn40l-node"), load_machine("sn40l-socket")
DECODE = Asked("decode", 1024, 1, "fused", "ho")


def memory(**numbers: object) -> Memory:
    """Of a decode pass of Llama-2-7B on one socket."""
    machine = load_machine("sn40l-socket", {name.replace("__", "."): number for name, number in numbers.items()})
    found = pass_of("llama-2-7b", machine, DECODE).memory()
    assert found is not None
    return found


def test_what_is_spilled_is_a_symbol_all_the_same_and_its_moves_cost_what_ddr_is_slower() -> None:
    roomy, tight = memory(), memory(hbm__capacity="8 GiB")
    assert (roomy.spilled_symbols, roomy.spilled_moved_bytes, roomy.spill_seconds) == (0, 0, 0.0)
    assert 0 < tight.spilled_symbols < tight.symbols == roomy.symbols
    ddr, hbm = SOCKET.ddr, SOCKET.hbm
    assert ddr.bandwidth is not None and ddr.efficiency is not None
    slower = 1 / (ddr.bandwidth * ddr.efficiency) - 1 / (hbm.bandwidth * hbm.efficiency)
    assert tight.spill_seconds == pytest.approx(tight.spilled_moved_bytes * slower, rel=1e-6)


def test_a_ddr_quicker_than_hbm_saves_nothing() -> None:
    found = memory(hbm__capacity="8 GiB", ddr__bandwidth="100 TB/s")
    assert found.spilled_moved_bytes > 0 and found.spill_seconds == 0.0


def test_a_sequence_is_4096_tokens_where_none_is_said() -> None:
    assert TOKENS == 4096
    for phase in ("prefill", "decode"):
        unsaid, said = (
            pass_of("llama-2-7b", SOCKET, replace(DECODE, phase=phase, sequence=sequence)) for sequence in (None, 4096)
        )
        assert unsaid.step == said.step


def test_a_decode_pass_runs_decode_kernels_and_no_vision_tower() -> None:
    assert load_shape("llava-1.5-7b").vision is not None
    prefill, decode = (
        {op.name for kernel in pass_of("llava-1.5-7b", SOCKET, replace(DECODE, phase=phase)).kernels
         for op in kernel.operators}
        for phase in ("prefill", "decode")
    )  # fmt: skip
    assert decode < prefill


@pytest.mark.parametrize(("sequence", "seen"), [(100, 100), (4096, 4096), (5000, 4096)])  # Mistral's window: 4096
def test_a_decode_step_reads_its_sequences_as_far_as_attention_does(sequence: int, seen: int) -> None:
    asked = Asked("decode", sequence, 3, "fused", "ho")
    assert pass_of("mistral-7b", SOCKET, asked).step == Step(3, 3 * seen, 3 * seen, 3)
    assert pass_of("llama-3-8b", SOCKET, asked).step == Step(3, 3 * sequence, 3 * sequence, 3)


@pytest.mark.parametrize("phase", ["prefill", "train"])
def test_a_prompt_is_read_by_each_of_its_tokens_as_far_as_attention_does(phase: str) -> None:
    whole, beyond = 4096 * 4097 // 2, (5000 - 4096) * 4096  # pairs until the window is full, and from then on
    asked = Asked(phase, 5000, 2, "fused", "ho")
    assert pass_of("mistral-7b", SOCKET, asked).step == Step(2 * 5000, 2 * (whole + beyond), 2 * 5000, 2)
    assert pass_of("llama-3-8b", SOCKET, asked).step == Step(2 * 5000, 2 * 5000 * 5001 // 2, 2 * 5000, 2)


def test_the_sequences_of_a_transform_are_shared_out_over_the_sockets() -> None:
    for batch, on_each in ((1, 1), (8, 1), (9, 2)):
        assert pass_of("monarch-fft", NODE, Asked("prefill", None, batch, "fused", "ho")).step == Step(0, 0, 0, on_each)


def test_a_row_of_a_placed_kernel_is_its_placement_and_what_all_its_iterations_do() -> None:
    found = pass_of("llama-2-7b", SOCKET, replace(DECODE, fusion="looped"))
    assert max(kernel.iterations for kernel in found.kernels) == 32
    for row, kernel in zip(found.rows(), found.kernels, strict=True):
        placed = kernel.placement
        assert placed is not None
        assert (row.tiles, row.pcus, row.pmus, row.sram_bytes) == (
            placed.tiles, placed.pcus, placed.pmus, placed.sram_bytes,
        )  # fmt: skip
        assert row.sram_bytes > 0
        assert row.flops == kernel.iterations * kernel.flops.at(found.step)
        assert row.hbm_bytes == kernel.iterations * kernel.hbm.at(found.step)
        assert row.flops_per_byte == row.flops / row.hbm_bytes


def test_a_kernel_that_is_not_placed_has_the_whole_socket_in_one_tile() -> None:
    gpu = load_machine("dgx-a100")
    found = pass_of("llama-2-7b", gpu, DECODE)
    for row in found.rows():
        assert (row.tiles, row.pcus, row.pmus, row.sram_bytes) == (1, gpu.compute.units, gpu.sram.banks, 0)
        assert (row.pcu_share, row.pmu_share, row.slowest_stage) == (1.0, 1.0, "")
    kernels = found.as_json()["kernels"]
    assert isinstance(kernels, list) and all(kernel["stages"] == [] for kernel in kernels)


def test_a_kernel_that_moves_nothing_has_no_intensity() -> None:
    found = pass_of("llama-2-7b", SOCKET, DECODE)
    still = replace(found, kernels=(replace(found.kernels[0], hbm=Form()),))
    assert [(row.hbm_bytes, row.flops_per_byte) for row in still.rows()] == [(0.0, 0.0)]


def test_the_tiles_of_a_row_are_those_of_its_placement() -> None:
    found = pass_of("llama-2-7b", NODE, Asked("prefill", 1024, 8, "fused", "ho"))
    tiles = [kernel.placement.tiles for kernel in found.kernels if kernel.placement is not None]
    assert [row.tiles for row in found.rows()] == tiles and max(tiles) > 1
