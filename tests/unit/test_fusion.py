"""Which operators share a kernel at each level, and is every operator in exactly one?"""

from __future__ import annotations

import pytest

from node.dataflow.fusion import CONVENTIONAL_LIMIT, LEVELS, partition
from node.dataflow.graph import Block, Operator
from node.dataflow.operators import activation, elementwise
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import model_names

LAYER = decoder(load_shape("llama-2-7b"), 8).blocks[1]


def names(groups: tuple[tuple[Operator, ...], ...]) -> list[str]:
    return [" ".join(operator.name for operator in group) for group in groups]


def op(name: str, kind: str, inputs: str = "", outputs: str = "") -> Operator:
    tensors = [tuple(activation(tensor, 1) for tensor in text.split()) for text in (inputs, outputs)]
    return Operator(name, kind, *tensors)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("degree", [1, 8])
@pytest.mark.parametrize("model", model_names())
def test_every_operator_is_in_one_kernel_and_in_order(model: str, degree: int, level: str) -> None:
    for block in decoder(load_shape(model), degree).blocks:
        groups = partition(block, level)
        assert all(groups)
        assert tuple(operator for group in groups for operator in group) == block.operators


def test_unfused_is_a_kernel_each_and_fused_one_for_the_block() -> None:
    assert [len(group) for group in partition(LAYER, "unfused")] == [1] * 20
    assert partition(LAYER, "fused") == (LAYER.operators,)


def test_a_layer_fused_as_on_a_gpu_is_fifteen_kernels() -> None:
    assert names(partition(LAYER, "conventional")) == [
        "attention_norm",
        "q_proj",
        "k_proj",
        "v_proj",
        "rotary kv_append",
        "scores softmax values",  # flash attention
        "o_proj",
        "attention_all_reduce",
        "attention_add ffn_norm",
        "gate_proj",
        "up_proj",
        "silu multiply",
        "down_proj",
        "ffn_all_reduce",
        "ffn_add",
    ]


def test_on_one_socket_the_residual_is_an_epilogue_of_the_projection() -> None:
    groups = names(partition(decoder(load_shape("llama-2-7b")).blocks[1], "conventional"))
    assert "o_proj attention_add ffn_norm" in groups and "down_proj ffn_add" in groups
    assert len(groups) == 11


@pytest.mark.parametrize("degree", [1, 2, 8])
@pytest.mark.parametrize("model", model_names())
def test_a_conventional_kernel_is_small_and_its_operators_follow_from_each_other(model: str, degree: int) -> None:
    for block in decoder(load_shape(model), degree).blocks:
        for group in partition(block, "conventional"):
            assert len(group) <= 5
            assert len(group) == 1 or not any(operator.collective for operator in group)
            for index, operator in enumerate(group[1:], 1):
                made = {tensor.name for earlier in group[:index] for tensor in earlier.outputs}
                assert made & {tensor.name for tensor in operator.inputs}


def test_five_operators_are_a_conventional_kernel_and_six_are_not() -> None:
    assert CONVENTIONAL_LIMIT == 5
    chain = [activation(f"t{index}", 1) for index in range(7)]
    steps = tuple(elementwise(f"e{i}", (chain[i],), (chain[i + 1],), flops=1) for i in range(6))
    assert names(partition(Block("b", steps), "conventional")) == ["e0 e1 e2 e3 e4", "e5"]


@pytest.mark.parametrize(
    ("first", "second", "joins"),
    [
        ("gemm", "elementwise", True),
        ("gather", "elementwise", True),
        ("rowwise", "elementwise", True),
        ("elementwise", "elementwise", True),
        ("elementwise", "rowwise", True),
        ("gather", "rowwise", True),
        ("attention", "attention", True),
        ("gemm", "rowwise", False),
        ("gemm", "gemm", False),
        ("gemm", "attention", False),
        ("elementwise", "attention", False),
        ("elementwise", "gemm", False),
        ("attention", "elementwise", False),
        ("collective", "elementwise", False),
        ("collective", "rowwise", False),
        ("gemm", "collective", False),
        ("elementwise", "collective", False),
        ("rowwise", "rowwise", False),
    ],
)
def test_an_operator_joins_the_kinds_that_compilers_join(first: str, second: str, joins: bool) -> None:
    block = Block("b", (op("a", first, outputs="t"), op("b", second, inputs="t")))
    assert len(partition(block, "conventional")) == (1 if joins else 2)


def test_an_operator_that_reads_nothing_of_a_kernel_stays_out_of_it() -> None:
    block = Block("b", (op("a", "elementwise", "x", "y"), op("b", "elementwise", "x", "z")))
    assert names(partition(block, "conventional")) == ["a", "b"]
    late = (op("a", "elementwise", "x", "y"), op("b", "elementwise", "y", "z"), op("c", "elementwise", "y", "w"))
    assert names(partition(Block("b", late), "conventional")) == ["a b c"]  # of any of its operators
