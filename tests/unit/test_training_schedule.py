"""What does a training step keep, from when until when, and how much of it is moved? Worked by hand for two layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.dataflow.form import ZERO, Form, Step
from node.dataflow.fusion import blocks_at
from node.dataflow.graph import Block, Operator, Tensor
from node.dataflow.kernel import Kernel
from node.dataflow.schedule import schedule
from node.models.hugging_face import load_shape
from node.models.training import train

STEP = Step(tokens=5, pairs=0, context=5, sequences=1)
ALL = Form(constant=64)  # weights of 64 bytes, read whole


def tensor(name: str, **more: object) -> Tensor:
    """8 bytes a token: 40 in ``STEP``."""
    return Tensor(name, "tokens", (4,), **more)  # type: ignore[arg-type]


def weights(name: str, size: int, within: str = "") -> Tensor:
    """Gradients or parts of weights, of so many bytes."""
    return Tensor(name, "constant", (size // 2,), within=within)


def operator(name: str, inputs: str | tuple[Tensor, ...], *outputs: Tensor, **more: object) -> Operator:
    sources = tuple(map(tensor, inputs.split())) if isinstance(inputs, str) else inputs
    return Operator(name, "gemm", sources, outputs, **more)  # type: ignore[arg-type]


EMBED = operator("embed", "", tensor("a"), weights=100, weight_read=Form(tokens=2))
# A layer: u = x W, out = x + u; backward reads x and u
UP = operator("up", "x", tensor("u", kept=True), weights=64, weight_read=ALL)
ADD = operator("add", "x u", tensor("out"))
HEAD = operator("head", "y", tensor("y_gradient"), weights("head_gradient", 6), weights=6, weight_read=Form(constant=6))
BACK = operator("up_back", "out_gradient u", tensor("part"), weight_read=ALL, weights_of="up")
PRODUCT = operator("up_product", (tensor("x"), tensor("out_gradient")), weights("up_gradient", 32))
SUM = operator("sum", "out_gradient part", tensor("x_gradient"))
ADAM = operator(
    "up_adam",
    (weights("up_gradient", 32), weights("state", 384, within="up_adam")),
    weights("state_updated", 384, within="up_adam"),
    weights("up_updated", 32, within="up"),
    weights=384,
)
LAST = operator("head_adam", (weights("head_gradient", 6),), weights("head_updated", 6, within="head"))
FIRST, LAYER, TOP = Block("first", (EMBED,)), Block("layer", (UP, ADD), 2), Block("top", (HEAD,))
BACKWARD = Block("back", (BACK, PRODUCT, SUM), 2, mirrors="layer")
OPTIMIZER, END = Block("optimizer", (ADAM,), 2, mirrors="back"), Block("end", (LAST,))
BLOCKS = (FIRST, LAYER, TOP, BACKWARD, OPTIMIZER, END)
Lives = dict[str, tuple[int, int, int, int]]


def kernel(block: Block, *operators: Operator, looped: bool = False) -> Kernel:
    repeat, iterations = (1, block.repeat) if looped else (block.repeat, 1)
    return Kernel(block, "", repeat, iterations, operators, bounds=(), fixed_s=0, hbm=ZERO, flops=ZERO, link=ZERO)


def found(*kernels: Kernel) -> Lives:
    """Of each symbol: size, first, last, moved."""
    every = schedule(kernels, STEP).symbols
    assert len({symbol.name for symbol in every}) == len(every)
    return {symbol.name: (symbol.size, symbol.first, symbol.last, symbol.moved) for symbol in every}


def held(last: int) -> Lives:
    """Weights are read forward and backward and written once, the state is read and written: nothing is there twice."""
    lives = {"first.embed.weights": (100, 0, last, 10), "top.head.weights": (6, 0, last, 6 + 6)}
    for layer in range(2):
        lives[f"layer[{layer}].up.weights"] = (64, 0, last, 64 + 64 + 32)
        lives[f"optimizer[{layer}].up_adam.weights"] = (384, 0, last, 384 + 384)
    return lives


def test_one_kernel_an_operator() -> None:
    """Kernels: 0 embed; 1 2 and 3 4 layers; 5 head; 6 7 8 backward of layer 1, 9 10 11 of layer 0; 12 13 14 Adam."""
    expected = held(14) | {
        "first.a": (40, 0, 10, 4 * 40),  # into layer 0: two kernels read it there, and the product of its backward
        "layer[0].u": (40, 1, 9, 3 * 40),
        "layer[0].out": (40, 2, 7, 4 * 40),  # what entered layer 1, whose backward is the first
        "layer[1].u": (40, 3, 6, 3 * 40),
        "layer[1].out": (40, 4, 5, 2 * 40),
        "top.y_gradient": (40, 5, 8, 4 * 40),
        "top.head_gradient": (6, 5, 14, 2 * 6),
        "back[0].part": (40, 6, 8, 2 * 40),
        "back[0].up_gradient": (32, 7, 13, 2 * 32),  # of layer 1
        "back[0].x_gradient": (40, 8, 11, 4 * 40),
        "back[1].part": (40, 9, 11, 2 * 40),
        "back[1].up_gradient": (32, 10, 12, 2 * 32),  # of layer 0
        "back[1].x_gradient": (40, 11, 11, 40),
    }
    assert found(*(kernel(block, op) for block in BLOCKS for op in block.operators)) == expected


@pytest.mark.parametrize("looped", [False, True])
def test_one_kernel_a_block_keeps_only_what_another_block_reads(looped: bool) -> None:
    """Kernels: 0; layers 1 2; 3; backward 4 5; optimizer 6 7; 8. The part of a gradient stays inside, u does not."""
    expected = held(8) | {
        "first.a": (40, 0, 5, 3 * 40),
        "layer[0].u": (40, 1, 5, 2 * 40),
        "layer[0].out": (40, 1, 4, 3 * 40),
        "layer[1].u": (40, 2, 4, 2 * 40),
        "layer[1].out": (40, 2, 3, 2 * 40),
        "top.y_gradient": (40, 3, 4, 2 * 40),
        "top.head_gradient": (6, 3, 8, 2 * 6),
        "back[0].up_gradient": (32, 4, 7, 2 * 32),
        "back[0].x_gradient": (40, 4, 5, 2 * 40),
        "back[1].up_gradient": (32, 5, 6, 2 * 32),
        "back[1].x_gradient": (40, 5, 5, 40),
    }
    assert found(*(kernel(block, *block.operators, looped=looped) for block in BLOCKS)) == expected


def test_weights_that_nobody_has_are_told() -> None:
    alone = replace(BACKWARD, mirrors="")
    with pytest.raises(ValueError, match="operator up: has no weights"):
        found(kernel(alone, *alone.operators))


# Of the graph


@pytest.mark.parametrize("name", ["llama-2-7b", "sparsegpt-13b", "falcon-40b", "bloom-176b"])
def test_a_block_mirrors_an_earlier_one_that_runs_as_often(name: str) -> None:
    blocks = train(load_shape(name), 8).blocks
    before = {block.name: (at, block.repeat) for at, block in enumerate(blocks)}
    mirrors = {block.name: block.mirrors for block in blocks if block.mirrors}
    assert mirrors == {"layer_backward": "layer", "layer_optimizer": "layer_backward"}
    for block, mirrored in mirrors.items():
        assert before[mirrored][0] < before[block][0] and before[mirrored][1] == before[block][1]


def test_a_single_layer_is_not_joined_with_what_runs_once_beside_it() -> None:
    blocks = train(replace(load_shape("llama-2-7b"), layers=1), 8).blocks
    assert {block.repeat for block in blocks} == {1}
    assert [block.name for block in blocks_at(blocks, "fused")] == [block.name for block in blocks]
