"""Do sockets send over their links what timing mode charges, and do those that share no KV head get ahead?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cluster.peer_links.links import in_process
from node.dataflow.compiler import Compiler
from node.dataflow.form import Step
from node.dataflow.graph import DTYPES, Graph, Operator
from node.dataflow.meaning.compute import shape_of
from node.dataflow.meaning.exchange import exchange
from node.dataflow.stages import sending
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import Shape
from node.models.training import train, training_step
from node.spec import Machine
from node.spec_file import load_machine
from tests.functional import Array
from tests.peers import bringing, check, joined, together

NODE = load_machine("sn40l-node")
NEVER = load_machine("sn40l-node", {"peer.hop_worth": "1 B"})  # but among two
ALWAYS = load_machine("sn40l-node", {"peer.hop_worth": "1 TB"})
GQA = Shape("gqa", 2, 32, 16, 4, 4, 24, 40, 64)


def _collectives(graphs: Sequence[Graph], step: Step, machine: Machine = NODE) -> list[list[Operator]]:
    """Of each collective each rank's operator, as it is compiled for ``step``."""
    compiler = Compiler.of(machine, len(graphs), "unfused", "ho")
    by_rank = [[op for kernel in compiler.kernels(graph.blocks, step) for op in kernel.operators] for graph in graphs]
    return [list(ops) for ops in zip(*([op for op in ops if op.collective] for ops in by_rank), strict=True)]


def _random(op: Operator, step: Step, rank: int) -> Array:
    """What a rank brings."""
    return np.random.default_rng([rank, *op.name.encode()]).normal(size=shape_of(op.inputs[0], step)).astype(np.float32)


def _sent(ops: Sequence[Operator], step: Step) -> list[tuple[int, float]]:
    """Of each rank the elements that it sends, and those that it is charged for."""
    links, arrays = in_process(len(ops)), [_random(op, step, rank) for rank, op in enumerate(ops)]
    check([links], ops, arrays)
    found = []
    for rank, op in enumerate(ops):
        charged = sending(op, NODE, len(ops))[0].at(step) * NODE.peer.bandwidth
        nbytes = sum(sent for (at, _), sent in links.sent.items() if at == rank)
        found.append((nbytes // 4, charged / DTYPES[op.inputs[0].dtype]))
    return found


@pytest.mark.parametrize("step", [Step(1, 9, 9, 1), Step(5, 60, 60, 5), Step(48, 48 * 49 // 2, 48, 1)])
@pytest.mark.parametrize("degree", [1, 2, 3, 5, 8, 16])
def test_elements_sent_are_those_charged(degree: int, step: Step) -> None:
    """Of all-reduces in two hops less than one element per peer apart, over all members not at all; of others exactly.

    A token has 8 KiB, so that of 8 sockets one goes directly, and 5 and 48 in two hops; of 3 sockets 5 directly too.
    """
    shape = replace(load_shape("llama-3-8b"), vocabulary=12_827)
    graphs = [decoder(shape, degree, rank) for rank in range(degree)]
    all_collectives = _collectives(graphs, step)
    assert len(all_collectives) == (4 if degree > 1 else 0)
    most = {2: 48, 3: 36, 5: 10, 8: 4, 16: 1}.get(degree, 0)  # tokens of a direct all-reduce
    assert sum(op.direct for ops in all_collectives for op in ops) == (3 * degree if step.tokens <= most else 0)
    for ops in all_collectives:
        found = _sent(ops, step)
        apart = [abs(sent - charged) for sent, charged in found]
        exact = ops[0].direct or ops[0].collective == "all_gather"
        assert max(apart) < (1e-6 if exact else max(degree - 2, 1e-6)), (ops[0].name, found)
        assert sum(sent for sent, _ in found) == pytest.approx(sum(charged for _, charged in found), rel=1e-12)


@pytest.mark.parametrize("machine", [NEVER, ALWAYS], ids=["in two hops", "direct"])
@pytest.mark.parametrize("degree", [2, 8, 16])
def test_elements_sent_in_training_are_those_charged(degree: int, machine: Machine) -> None:
    """Losses are shared out by rows of 3; KV heads are held by as many sockets each, so charged as they are sent."""
    step = training_step(1, 7)
    graphs = [train(GQA, degree, rank) for rank in range(degree)]
    names = set()
    for ops in _collectives(graphs, step, machine):
        assert ops[0].direct == (ops[0].meaning != "shared_heads" and (machine is ALWAYS or degree == 2))
        names.add(ops[0].meaning)
        row = 3 if ops[0].meaning == "log_sum_exp" else 1
        apart = [abs(sent - charged) for sent, charged in _sent(ops, step)]
        assert max(apart) < max(row * (degree - 2), 1e-6), (ops[0].name, apart)
    assert names == {"all_reduce", "log_sum_exp", *(["shared_heads"] if degree > 4 else [])}


def test_kv_heads_held_by_unequal_numbers_of_sockets_are_charged_as_the_most_shared() -> None:
    """Of 2 KV heads of 5 query heads each, 2 sockets hold one and 3 the other; socket 1 holds both."""
    shape, under = replace(GQA, hidden=20, heads=10, kv_heads=2, head_dim=4), 0
    graphs = [train(shape, 4, rank) for rank in range(4)]
    for ops in _collectives(graphs, training_step(1, 7)):
        if ops[0].meaning == "shared_heads":
            for sent, charged in _sent(ops, training_step(1, 7)):
                assert sent <= charged + 4
                under += sent < charged - 4
    assert under == 2  # keys and values


def test_shared_heads_over_tcp() -> None:
    graphs = [train(GQA, 8, rank) for rank in range(8)]
    links, step = joined([[rank] for rank in range(8)]), training_step(1, 7)
    for ops in _collectives(graphs, step):
        if ops[0].meaning == "shared_heads":
            check(links, ops, [_random(op, step, rank) for rank, op in enumerate(ops)])
    for one in links:
        one.close()


@pytest.mark.parametrize("here", [[[0, 1, 2, 3, 4]], [[0, 3], [1], [2, 4]], [[0], [1], [2], [3], [4]]])
def test_a_socket_that_shares_no_head_goes_on_without_those_who_do(here: list[list[int]]) -> None:
    """Of 5 sockets with 4 KV heads the first has one of its own."""
    step = training_step(1, 7)
    graphs = [train(GQA, 5, rank) for rank in range(5)]
    by_rank = [[op for block in graph.blocks for op in block.operators if op.collective] for graph in graphs]
    brought = [[(op, _random(op, step, rank)) for op in ops] for rank, ops in enumerate(by_rank)]
    links = [in_process(5)] if len(here) == 1 else joined(here)
    made: list[list[Array]] = [[] for _ in by_rank]
    for end in together(links, [bringing(ops, to) for ops, to in zip(brought, made, strict=True)]):
        end.result()
    assert len(by_rank[0]) == len(by_rank[1]) - 2
    sharing = [dict(zip([op.name for op in ops], to, strict=True)) for ops, to in zip(by_rank, made, strict=True)]
    for name in sharing[1]:
        holders = [rank for rank in range(5) if name in sharing[rank]]
        all_brought = [next(pair for pair in brought[rank] if pair[0].name == name) for rank in holders]
        for rank, array in zip(holders, exchange(all_brought), strict=True):
            np.testing.assert_array_equal(sharing[rank][name], array, strict=True)
    for one in links:
        one.close()
