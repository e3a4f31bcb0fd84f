"""Is the sparse GPT the published shape, and does it hold and multiply its non-zeros only?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node.dataflow.form import Step
from node.dataflow.graph import Operator
from node.errors import InputError
from node.models.decoder import decoder
from node.models.hugging_face import load_shape

SPARSE = load_shape("sparsegpt-13b")
DENSE = replace(SPARSE, density=1.0, index_bytes=0.0)
HIDDEN = 5120
LINEAR = 40 * 12 * HIDDEN**2  # elements of Q, K, V, O and the FFN's two, zeros included
POSITIONS, TABLE = 2048 * HIDDEN, 50257 * HIDDEN
BIASES, NORMS = 40 * 9 * HIDDEN, 40 * 4 * HIDDEN + 2 * HIDDEN


def operators(degree: int = 1, rank: int = 0) -> dict[str, Operator]:
    return {op.name: op for block in decoder(SPARSE, degree, rank).blocks for op in block.operators}


def test_zeros_included_it_has_the_parameters_of_gpt_3_13b() -> None:
    by_hand = LINEAR + BIASES + NORMS + POSITIONS + TABLE
    assert decoder(DENSE, weight_bytes=1.0).weight_bytes == by_hand == 12_853_386_240 == SPARSE.parameters


def test_a_non_zero_is_held_with_its_index_and_the_rest_is_dense() -> None:
    dense = 2 * (BIASES + NORMS + POSITIONS + TABLE)
    assert decoder(SPARSE).weight_bytes == LINEAR // 8 * (2 + 2) + dense == 6_832_404_480


def test_a_sparse_gemm_multiplies_its_non_zeros_and_reads_them() -> None:
    up = operators()["up_proj"]
    assert up.flops.tokens == 2 * HIDDEN * 20480 / 8 + 20480
    assert up.weight_read.constant == up.weights == HIDDEN * 20480 // 8 * 4 + 20480 * 2


def test_the_tied_head_is_dense_and_stored_once() -> None:
    head = operators()["lm_head"]
    assert (head.weights, head.weight_read.constant) == (0, 2 * TABLE)
    assert head.flops.sequences == 2 * TABLE


@pytest.mark.parametrize("degree", [1, 8])
def test_learned_positions_are_held_by_every_socket_and_read_a_row_a_token(degree: int) -> None:
    positions = operators(degree, degree - 1)["positions"]
    assert positions.weights == 2 * POSITIONS
    assert positions.weight_read.at(Step(7, 0, 0, 1)) == 7 * HIDDEN * 2
    assert positions.flops.tokens == HIDDEN


def test_it_knows_positions_neither_by_rotation_nor_by_a_bias_of_scores() -> None:
    assert "rotary" not in operators()
    assert operators()["softmax"].flops.pairs == 5 * 40
    assert operators()["positions"].inputs == operators()["embedding"].outputs
    assert [tensor.name for tensor in operators(8)["positions"].inputs] == ["embedding_sum"]


@pytest.mark.parametrize("degree", [2, 8])
def test_shards_add_up_but_for_what_every_socket_holds(degree: int) -> None:
    shards = sum(decoder(SPARSE, degree, rank).weight_bytes for rank in range(degree))
    replicated = 2 * (NORMS + POSITIONS + 40 * 2 * HIDDEN)  # norms, positions, biases of O and down
    assert shards == decoder(SPARSE).weight_bytes + (degree - 1) * replicated


@pytest.mark.parametrize(
    "wrong", ["density = 0", "density = 1.5", "density = true", "index_bytes = -1", "density = nan"]
)
def test_a_wrong_sparsity_is_told(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "m.toml"
    keys = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocabulary", "context")
    path.write_text("\n".join(['name = "m"', *(f"{key} = 8" for key in keys), wrong]))
    with pytest.raises(InputError, match=f"{wrong.partition(' ')[0]} = .*: must be a number from"):
        load_shape(str(path))
