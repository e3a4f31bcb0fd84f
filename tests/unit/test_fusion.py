"""Which operators may share a kernel at each level, and which kernels of all are taken?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.dataflow.compiler import Compiler
from node.dataflow.form import Step
from node.dataflow.fusion import CONVENTIONAL_LIMIT, LEVELS, blocks_at, candidates, conventional, quickest
from node.dataflow.graph import Block, Operator
from node.dataflow.operators import activation, elementwise
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import model_names
from node.spec_file import load_machine

LAYER = decoder(load_shape("llama-2-7b"), 8).blocks[1]


def groups_of(operators: tuple[Operator, ...]) -> list[str]:
    """The names in each conventional kernel."""
    return [" ".join(op.name for op in operators[first : last + 1]) for first, last in conventional(operators)]


def op(name: str, kind: str, inputs: str = "", outputs: str = "") -> Operator:
    tensors = [tuple(activation(tensor, 1) for tensor in text.split()) for text in (inputs, outputs)]
    return Operator(name, kind, *tensors)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("step", [Step(300, 45150, 300, 1), Step(4, 4000, 4000, 4)], ids=["prompt", "decode"])
@pytest.mark.parametrize("machine", ["sn40l-node", "dgx-a100"])
@pytest.mark.parametrize("model", ["llama-2-7b", "llama-3-8b"])
def test_every_operator_is_in_one_kernel_and_in_order(model: str, machine: str, step: Step, level: str) -> None:
    blocks = decoder(load_shape(model), 8).blocks

    def decided(op: Operator) -> Operator:
        """4 tokens of 8 KiB: directly 7 x 32 KiB, in two hops 1.75 x 32 KiB; 172 kB more, up to 200 kB are worth it."""
        direct = op.collective == "all_reduce" and step.tokens == 4 and machine == "sn40l-node"
        return replace(op, direct=True, flops=op.flops * 7) if direct else op

    kernels = Compiler.of(load_machine(machine), 8, level, "ho").kernels(blocks, step)
    assert all(kernel.operators for kernel in kernels)
    in_kernels = [(op, kernel.repeat * kernel.iterations) for kernel in kernels for op in kernel.operators]
    assert in_kernels == [(decided(op), block.repeat) for block in blocks for op in block.operators]


def test_unfused_allows_a_kernel_each_and_fused_every_run_of_operators() -> None:
    assert candidates(LAYER.operators, "unfused") == [(index, index) for index in range(20)]
    runs = {(first, last) for last in range(20) for first in range(last + 1)}  # 20 x 21 / 2
    for level in ("fused", "looped"):
        found = candidates(LAYER.operators, level)
        assert len(found) == 210 and set(found) == runs


def test_conventional_allows_every_part_of_its_groups() -> None:
    chain = [op("a", "gemm", outputs="x"), op("b", "elementwise", "x", "y"), op("c", "gemm", "y", "z")]
    assert set(candidates(chain, "conventional")) == {(0, 0), (0, 1), (1, 1), (2, 2)}


def test_a_layer_fused_as_on_a_gpu_is_fifteen_kernels() -> None:
    assert groups_of(LAYER.operators) == [
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
    groups = groups_of(decoder(load_shape("llama-2-7b")).blocks[1].operators)
    assert "o_proj attention_add ffn_norm" in groups and "down_proj ffn_add" in groups
    assert len(groups) == 11


@pytest.mark.parametrize("degree", [1, 2, 8])
@pytest.mark.parametrize("model", model_names())
def test_a_conventional_kernel_is_small_and_its_operators_follow_from_each_other(model: str, degree: int) -> None:
    for block in decoder(load_shape(model), degree).blocks:
        ends = conventional(block.operators)
        assert [first for first, _ in ends] == [0, *(last + 1 for _, last in ends[:-1])]
        assert ends[-1][1] == len(block.operators) - 1
        for start, end in ends:
            group = block.operators[start : end + 1]
            assert 1 <= len(group) <= 5
            assert len(group) == 1 or not any(operator.collective for operator in group)
            for index, operator in enumerate(group[1:], 1):
                made = {tensor.name for earlier in group[:index] for tensor in earlier.outputs}
                assert made & {tensor.name for tensor in operator.inputs}


def test_five_operators_are_a_conventional_kernel_and_six_are_not() -> None:
    assert CONVENTIONAL_LIMIT == 5
    chain = [activation(f"t{index}", 1) for index in range(7)]
    steps = tuple(elementwise(f"e{i}", (chain[i],), (chain[i + 1],), flops=1) for i in range(6))
    assert groups_of(steps) == ["e0 e1 e2 e3 e4", "e5"]


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
    pair = (op("a", first, outputs="t"), op("b", second, inputs="t"))
    assert groups_of(pair) == (["a b"] if joins else ["a", "b"])


def test_an_operator_that_reads_nothing_of_a_kernel_stays_out_of_it() -> None:
    apart = (op("a", "elementwise", "x", "y"), op("b", "elementwise", "x", "z"))
    assert groups_of(apart) == ["a", "b"]
    late = (op("a", "elementwise", "x", "y"), op("b", "elementwise", "y", "z"), op("c", "elementwise", "y", "w"))
    assert groups_of(late) == ["a b c"]  # of any of its operators


def test_blocks_that_run_once_after_one_another_are_one_to_a_fuser() -> None:
    a, b, c, d = (op(name, "gemm") for name in "abcd")
    blocks = (Block("in", (a,)), Block("eye", (b,)), Block("layer", (c,), repeat=3), Block("out", (d,)))
    for level in ("fused", "looped"):
        found = blocks_at(blocks, level)
        assert [(block.name, block.operators, block.repeat) for block in found] == [
            ("in+eye", (a, b), 1),
            ("layer", (c,), 3),
            ("out", (d,), 1),
        ]
    for level in ("unfused", "conventional"):
        assert blocks_at(blocks, level) == list(blocks)


def test_blocks_with_the_same_names_stay_apart() -> None:
    """Two layers that differ in size alone: one kernel could not tell their tensors."""
    x, y = activation("x", 2), activation("y", 2)
    one, other = (Block(name, (elementwise("a", (x,), (y,), flops=1),)) for name in ("one", "other"))
    assert blocks_at((one, other), "fused") == [one, other]


def test_what_enters_a_block_and_nobody_names_is_what_the_joined_one_hands_on() -> None:
    """A skip connection is named, and so is what is given to the pass."""
    u, x, y, z, given = (replace(activation(name, 2), given=name == "given") for name in ("u", "x", "y", "z", "given"))
    first = Block("first", (elementwise("a", (given,), (u,), flops=1), elementwise("b", (u,), (y,), flops=1)))
    second = Block("second", (elementwise("c", (x, u, given), (z,), flops=1),))
    (found,) = blocks_at((first, second), "fused")
    assert [op.inputs for op in found.operators] == [(given,), (u,), (replace(x, name="y"), u, given)]


@pytest.mark.parametrize(
    ("of_three", "of_two", "best"),
    [
        (9.0, (5.0, 5.0), [(0, 0), (1, 1), (2, 2)]),  # 3 x 2 = 6 < 5 + 2 < 9
        (9.0, (3.0, 5.0), [(0, 1), (2, 2)]),
        (9.0, (5.0, 3.0), [(0, 0), (1, 2)]),
        (4.0, (3.0, 3.0), [(0, 2)]),
        (np.inf, (np.inf, np.inf), [(0, 0), (1, 1), (2, 2)]),  # what does not fit is not taken
    ],
)
def test_the_kernels_that_take_the_least_time_are_taken(
    of_three: float, of_two: tuple[float, float], best: list[tuple[int, int]]
) -> None:
    seconds = {(0, 2): of_three, (0, 1): of_two[0], (1, 2): of_two[1]} | {(i, i): 2.0 for i in range(3)}
    ranges = list(seconds)
    assert [ranges[index] for index in quickest(ranges, np.array(list(seconds.values())))] == best


@pytest.mark.parametrize(
    ("seconds", "best"),
    [((np.inf, 1.0, np.inf), [0, 1]), ((1.0, np.inf, np.inf), [0, 1]), ((np.inf, np.inf, 5.0), [2])],
)
def test_where_nothing_fits_every_operator_is_covered_all_the_same(
    seconds: tuple[float, float, float], best: list[int]
) -> None:
    assert quickest([(0, 0), (1, 1), (0, 1)], np.array(seconds)) == best
