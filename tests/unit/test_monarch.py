"""Do FFTs in Monarch decomposition work and move what they should? FLOPs and bytes worked by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.fusion_study import FFT_BATCH, FFT_SPEEDUP, INTENSITY, MONARCH_BATCH, fft_speedup, intensities
from node.dataflow.form import Step, total
from node.dataflow.graph import Graph, Operator
from node.dataflow.program import compile_graph
from node.dataflow.traffic import Traffic
from node.errors import InputError
from node.models.monarch import Transform, is_transform, load_transform, monarch, read_transform, transform_names
from node.spec_file import load_machine

SOCKET = load_machine("sn40l-socket")
POINTS = 65_536  # 256 x 256
MATRIX = 256 * 256 * 4  # complex BF16; the twiddles, one a point, are as many
REAL, COMPLEX = 16 * POINTS * 2, 16 * POINTS * 8  # a tensor of 16 sequences: real BF16, complex FP32
FLOPS = 16 * (2 * 256 * 256 * 512 + 6 * POINTS + 2 * 256 * 512 * 256)  # real in, complex out; twiddles; the reverse
PUBLISHED = {"unfused": 39.5, "Gemm0-Mul-Transpose fused": 102.6, "all fused": 410.4}


def sequences(count: int) -> Step:
    return Step(tokens=0, pairs=0, context=0, sequences=count)


def operators(graph: Graph) -> tuple[Operator, ...]:
    (block,) = graph.blocks
    assert block.repeat == 1
    return block.operators


FFT = operators(monarch(load_transform("monarch-fft")))
LONG = operators(monarch(load_transform("flashfftconv-1m")))


# The FFT of 256 x 256 points


def test_the_fft_is_gemm_twiddles_transpose_gemm() -> None:
    assert [(op.name, op.kind) for op in FFT] == [
        ("gemm0", "gemm"),
        ("twiddle0", "elementwise"),
        ("transpose0", "layout"),
        ("gemm1", "gemm"),
    ]


def test_flops_of_each_operator_by_hand() -> None:
    assert [op.flops.at(sequences(1)) for op in FFT] == [67_108_864, 393_216, 0, 67_108_864]
    assert total(op.flops for op in FFT).at(sequences(16)) == FLOPS == 2_153_775_104


def test_weights_are_two_dft_matrices_and_the_twiddles_however_many_sequences() -> None:
    assert [op.weights for op in FFT] == [MATRIX, MATRIX, 0, MATRIX] == [262_144, 262_144, 0, 262_144]
    assert [op.weight_read.at(sequences(16)) for op in FFT] == [262_144, 262_144, 0, 262_144]


def test_what_enters_and_leaves_is_real_bf16_and_all_between_complex_fp32() -> None:
    signal = FFT[0].inputs[0]
    made = [op.outputs[0] for op in FFT]
    sizes = [tensor.size.at(sequences(16)) for tensor in (signal, *made)]
    assert sizes == [REAL, COMPLEX, COMPLEX, COMPLEX, REAL] == [2_097_152, 8_388_608, 8_388_608, 8_388_608, 2_097_152]


@pytest.mark.parametrize(
    ("ranges", "by_hand"),
    [
        # gemm0: real in, complex out; twiddles and transpose complex in and out; gemm1 complex in, real out
        ([(0, 0), (1, 1), (2, 2), (3, 3)], [REAL + MATRIX + COMPLEX, 2 * COMPLEX + MATRIX, 2 * COMPLEX, 10_747_904]),
        ([(0, 2), (3, 3)], [REAL + 2 * MATRIX + COMPLEX, COMPLEX + MATRIX + REAL]),
        ([(0, 3)], [REAL + 3 * MATRIX + REAL]),
    ],
)
def test_bytes_moved_by_hand(ranges: list[tuple[int, int]], by_hand: list[int]) -> None:
    traffic = Traffic(FFT, ranges, sequences(16))
    assert [traffic.forms(at, 1, 1.0).at(sequences(16)) for at in range(len(ranges))] == by_hand


def test_the_published_intensities_come_out_by_hand_and_as_the_kernels_count() -> None:
    by_hand = {
        "unfused": FLOPS / (2 * REAL + 6 * COMPLEX + 3 * MATRIX),
        "Gemm0-Mul-Transpose fused": FLOPS / (2 * REAL + 2 * COMPLEX + 3 * MATRIX),
        "all fused": FLOPS / (2 * REAL + 3 * MATRIX),
    }
    assert list(by_hand.values()) == pytest.approx([38.94, 98.99, 432.4], rel=1e-3)
    assert MONARCH_BATCH == 16 and intensities(SOCKET) == pytest.approx(by_hand, rel=1e-12)
    assert INTENSITY == PUBLISHED and by_hand == pytest.approx(PUBLISHED, rel=0.10)


# The long convolution of 64 x 128 x 128 points


def test_a_convolution_goes_there_times_the_filter_and_back_with_the_factors_in_reverse() -> None:
    there = ["gemm0", "twiddle0", "transpose0", "gemm1", "twiddle1", "transpose1", "gemm2"]
    assert [op.name for op in LONG] == [*there, "filter", *(f"inverse_{name}" for name in there)]
    points = 2**20
    gemms = [op.rows.at(sequences(1)) for op in LONG if op.kind == "gemm"]
    assert gemms == [points // factor for factor in (64, 128, 128, 128, 128, 64)]


def test_a_convolution_by_hand() -> None:
    """A GEMM of factor f takes 2 N f FLOPs for each pair of real parts: complex ones 4, from or to real ones 2."""
    points = 2**20
    gemms = 2 * 2 * points * (2 * 64 + 4 * 128 + 4 * 128)
    assert total(op.flops for op in LONG).at(sequences(1)) == gemms + 5 * 6 * points == 4_863_295_488
    assert sum(op.weights for op in LONG) == 2 * 4 * (64**2 + 128**2 + 128**2) + 5 * points * 4 == 21_266_432
    assert LONG[0].inputs[0].size.at(sequences(1)) == LONG[-1].outputs[0].size.at(sequences(1)) == points * 2
    assert {op.outputs[0].size.at(sequences(1)) for op in LONG[:-1]} == {points * 8}


def test_a_convolution_with_an_fft_of_one_factor_has_no_twiddles() -> None:
    short = operators(monarch(Transform("short", "convolution", (8,))))
    assert [op.name for op in short] == ["gemm0", "filter", "inverse_gemm0"]
    assert [op.flops.at(sequences(3)) for op in short] == [3 * 2 * 8 * 16, 3 * 6 * 8, 3 * 2 * 16 * 8]


@pytest.mark.parametrize("orchestration", ["so", "ho"])
def test_fused_it_is_one_kernel_that_moves_signal_result_and_weights(orchestration: str) -> None:
    step = sequences(32)
    program = compile_graph(monarch(load_transform("flashfftconv-1m")), SOCKET, 1, "fused", orchestration)
    (kernel,) = program.prefill_kernels(step)
    assert [op.name for op in kernel.operators] == [op.name for op in LONG]
    assert kernel.hbm.at(step) == pytest.approx(2 * 32 * 2**20 * 2 + 21_266_432)


@pytest.mark.parametrize("orchestration", ["so", "ho"])
def test_fused_it_is_as_many_times_quicker_as_published(orchestration: str) -> None:
    assert (FFT_BATCH, FFT_SPEEDUP) == (32, 13.0)
    assert fft_speedup(SOCKET, 32, orchestration) == pytest.approx(13.0, rel=0.25)


# Files of transforms


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    text = 'name = "mine"\nkind = "transform"\nfactors = [2, 32768, 16384]'  # 2^30 points, as many as there may be
    found = read_transform(written(tmp_path, text))
    assert found == Transform("mine", "transform", (2, 32768, 16384))
    assert found.points == 2**30


def test_the_built_in_ones_can_be_read_and_have_the_names_of_their_files() -> None:
    assert transform_names() == ["flashfftconv-1m", "monarch-fft"]
    assert [load_transform(name).name for name in transform_names()] == transform_names()
    assert [load_transform(name).points for name in transform_names()] == [2**20, 2**16]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\nkind = "transform"', "has name, kind: must have exactly name, kind, factors"),
        (
            'name = "a"\nkind = "transform"\nfactors = [2]\nbatch = 3',
            "has name, kind, factors, batch: must have exactly name, kind, factors",
        ),
        ('name = 5\nkind = "transform"\nfactors = [2]', "name = 5: must be a str"),
        ('name = "a"\nkind = "fft"\nfactors = [2]', "kind = 'fft': must be one of transform, convolution"),
        ('name = "a"\nkind = ["transform"]\nfactors = [2]', "kind = ['transform']: must be one of"),
        ("name = ", "cannot be read as TOML"),
        *(
            (f'name = "a"\nkind = "transform"\nfactors = {factors}', "factors = ")
            for factors in ("[]", "[1]", "[2, 0]", "[-4, -4]", "[2.0]", "[true, 2]", '["8"]', "[[2]]", "64")
        ),
        ('name = "a"\nkind = "transform"\nfactors = [2, 32768, 16385]', "their product at most 2^30"),
    ],
)
def test_a_bad_file_is_one_error_that_names_it_and_what_was_allowed(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        read_transform(path)


def test_a_missing_file_is_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read as TOML: No such file"):
        read_transform(tmp_path / "nowhere.toml")


def test_a_file_of_a_model_is_no_transform(tmp_path: Path) -> None:
    assert is_transform(str(written(tmp_path, 'name = "a"\nkind = "transform"\nfactors = [2]')))
    assert not is_transform(str(written(tmp_path, 'name = "a"\nlayers = 2')))
    assert is_transform("monarch-fft") and not is_transform("llama-2-7b")


def test_only_the_ends_of_a_convolution_are_real() -> None:
    operators = {op.name: op for op in monarch(Transform("c", "convolution", (4, 8))).blocks[0].operators}
    one = Step(0, 0, 0, 1)  # of 32 points: rows x depth x columns, the latter two twice as many where complex
    there = {"gemm0": 2 * 8 * 4 * 8, "gemm1": 2 * 4 * 16 * 16}
    by_hand = there | {"inverse_gemm0": 2 * 4 * 16 * 16, "inverse_gemm1": 2 * 8 * 8 * 4}
    assert {name: operators[name].flops.at(one) for name in by_hand} == by_hand
