"""Do sockets that share a KV head, they alone, sum the gradients of its weights? Is the link charged for that?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.dataflow.compiler import Compiler
from node.dataflow.graph import Block, Graph, Operator, share
from node.dataflow.placement import Search
from node.models.hugging_face import load_shape
from node.models.shape import Shape
from node.models.shared_heads import sharing
from node.models.training import train, training_step
from node.spec_file import load_machine

STEP = training_step(1, 64)
LLAMA = load_shape("llama-3-70b")  # 64 heads, 8 KV heads of 128, hidden 8192


def shaped(heads: int, kv_heads: int) -> Shape:
    return replace(LLAMA, heads=heads, kv_heads=kv_heads)


def reduced(graph: Graph) -> list[Operator]:
    (back,) = (block for block in graph.blocks if block.name == "layer_backward")
    return [op for op in back.operators if op.collective and op.members]


@pytest.mark.parametrize("degree", [1, 2, 4, 8])
def test_where_every_head_is_on_one_socket_nothing_is_summed(degree: int) -> None:
    assert reduced(train(LLAMA, degree)) == []


def test_two_sockets_that_hold_the_same_head_sum_its_two_gradients() -> None:
    """On 16 sockets each has a KV head, together with its neighbour: 8192 x 128 gradients of 2 bytes."""
    graph = train(LLAMA, 16)
    values, keys = reduced(graph)
    assert [op.name for op in (values, keys)] == [f"{of}_proj_weight_gradient_all_reduce" for of in ("v", "k")]
    for op in (values, keys):
        assert (op.collective, op.members) == ("all_reduce", 2)
        assert op.message.parts == (8192 * 128 * 2, 0, 0, 0, 0)
        assert op.flops.parts == (8192 * 128, 0, 0, 0, 0)
    made = {t.name: op.name for block in graph.blocks for op in block.operators for t in op.outputs}
    for adam in ("k_proj_adam", "v_proj_adam"):
        (read,) = (op.inputs[0].name for block in graph.blocks for op in block.operators if op.name == adam)
        assert made[read] == f"{read}_all_reduce"


@pytest.mark.parametrize(
    ("heads", "kv_heads", "degree", "expected"),
    [
        (8, 2, 4, [(1, 2)] * 4),
        (8, 2, 8, [(1, 4)] * 8),
        (6, 3, 4, [(0, 1), (0, 1), (1, 2), (1, 2)]),  # heads 0 1 | 2 3 | 4 | 5
        (9, 3, 2, [(1, 2), (1, 2)]),  # heads 0-4 | 5-8: KV head 1, one of two that each holds
        (8, 2, 3, [(1, 2), (2, 2), (1, 2)]),  # heads 0-2 | 3-5 | 6 7: the one between shares with both
        (4, 1, 8, [(1, 4)] * 4 + [(0, 1)] * 4),  # half of the sockets have no heads
    ],
)
def test_who_shares_by_hand(heads: int, kv_heads: int, degree: int, expected: list[tuple[int, int]]) -> None:
    assert [sharing(shaped(heads, kv_heads), degree, rank) for rank in range(degree)] == expected


@pytest.mark.parametrize("kv_heads", [2, 3, 8])
@pytest.mark.parametrize("degree", [2, 3, 5, 7, 12, 16])
def test_a_head_is_summed_where_and_only_where_a_socket_lacks_some_of_its_query_heads(
    kv_heads: int, degree: int
) -> None:
    shape = shaped(24, kv_heads)
    group = 24 // kv_heads
    for rank in range(degree):
        queries = share(24, degree, rank)
        parts = [sum(head // group == kv for head in queries) for kv in range(kv_heads)]
        partial = [part for part in parts if 0 < part < group]
        assert sharing(shape, degree, rank)[0] == len(partial)
        ops = reduced(train(shape, degree, rank))
        assert [op.message.constant for op in ops] == [pytest.approx(len(partial) * 8192 * 128 * 2)] * len(ops)
        assert len(ops) == (2 if partial else 0)
        assert all(op.flops.constant == op.message.constant / 2 for op in ops)  # an addition for 2 bytes


@pytest.mark.parametrize("level", ["unfused", "fused"])
def test_the_link_is_charged_for_the_sharers_not_for_the_group(level: str) -> None:
    """Of two members each sends a reduce-scatter's half and an all-gather's half of the message, in two hops."""
    machine = load_machine("sn40l-node")
    op = reduced(train(LLAMA, 16))[0]
    (kernel,) = Compiler.of(machine, 16, level, "ho").kernels([Block("b", (op,))], STEP)
    assert kernel.link.constant == pytest.approx(8192 * 128 * 2 / 400e9)
    (whole,) = Compiler.of(machine, 16, level, "ho").kernels([Block("b", (replace(op, members=0),))], STEP)
    assert whole.link.constant == pytest.approx(15 / 8 * kernel.link.constant)
    for one in (kernel, whole):
        assert one.fixed_s == pytest.approx(kernel.fixed_s) and one.cost(STEP).bound >= one.link.constant


def test_the_placer_waits_as_long_for_the_sharers_as_the_kernel_does() -> None:
    """With a link so slow that nothing else counts."""
    machine = load_machine("sn40l-node", {"peer.bandwidth": "1 MB/s"})
    op = reduced(train(LLAMA, 16))[0]
    (kernel,) = Compiler.of(machine, 16, "fused", "ho").kernels([Block("b", (op,))], STEP)
    assert kernel.cost(STEP).bound_by == "link"
    assert kernel.cost(STEP).bound == pytest.approx(8192 * 128 * 2 / 1e6)
    assert Search([op], [(0, 0)], STEP, machine, 16).steady_s[0] == kernel.cost(STEP).bound
