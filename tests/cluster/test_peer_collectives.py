"""Do collectives over links make what ``exchange`` makes, and send what timing mode charges?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.peer_links.connection import LinkError
from cluster.peer_links.drive import drive
from cluster.peer_links.links import Links, in_process
from node.collectives import COLLECTIVES
from node.dataflow.form import Step
from node.dataflow.graph import DTYPES, Operator, share
from node.dataflow.meaning.compute import shape_of
from node.dataflow.meaning.exchange import exchange
from node.errors import InvariantError
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import Shape
from node.models.training import train, training_step
from tests.functional import Array
from tests.peers import GATHER, SUM, bringing, brought_by, joined, together

LOSS = replace(SUM, name="loss", function="log_sum_exp")
GQA = Shape("gqa", 2, 32, 16, 4, 4, 24, 40, 64)


def _bits(array: Array) -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes()


def _check(links: Sequence[Links], ops: Sequence[Operator], arrays: Sequence[Array]) -> None:
    """One collective over ``links``, by rank: the bits that ``exchange`` makes of whole arrays."""
    made: list[list[Array]] = [[] for _ in ops]
    ends = together(links, [bringing([one], to) for one, to in zip(zip(ops, arrays, strict=True), made, strict=True)])
    for end in ends:
        end.result()
    expected = exchange(list(zip(ops, arrays, strict=True)))
    assert [_bits(one) for (one,) in made] == [_bits(one) for one in expected]


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 40))
def test_sums_and_gathers_in_process(members: int, rows: int, width: int) -> None:
    links = [in_process(members)]
    _check(links, [SUM] * members, [brought_by(rank, rows, width) for rank in range(members)])
    widths = [len(share(width, members, rank)) for rank in range(members)]
    _check(links, [GATHER] * members, [brought_by(rank, rows, widths[rank]) for rank in range(members)])
    _check(links, [LOSS] * members, [brought_by(rank, max(rows, 1), 3) for rank in range(members)])


@pytest.mark.parametrize("members", [1, 2, 3, 5, 8, 13, 16])
def test_sums_and_gathers_over_tcp(members: int) -> None:
    links = joined([[rank] for rank in range(members)])
    for width in (1, 5, 20, 4097):
        _check(links, [SUM] * members, [brought_by(rank, 3, width) for rank in range(members)])
    np.testing.assert_allclose(exchange([(SUM, np.ones((2, 2), np.float32))] * 3)[0], 3)
    _check(links, [GATHER] * members, [brought_by(rank, 3, (rank * 7) % 5) for rank in range(members)])
    _check(links, [LOSS] * members, [brought_by(rank, 11, 3) for rank in range(members)])
    assert all(one.refused == {} for one in links)
    for one in links:
        one.close()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(0, 300))
def test_any_size_over_tcp(rows: int, width: int) -> None:
    _check(THREE, [SUM] * 3, [brought_by(rank, rows, width) for rank in range(3)])
    _check(THREE, [GATHER] * 3, [brought_by(rank, rows, (width + 2 - rank) // 3) for rank in range(3)])


@pytest.fixture(scope="module", autouse=True)
def three():
    THREE.extend(joined([[0], [1], [2]]))
    yield
    for one in THREE:
        one.close()


THREE: list[Links] = []


def test_more_than_connections_hold_at_once() -> None:
    """Everybody sends 24 MiB to everybody: none may wait for another to read first."""
    arrays = [np.full((3, 1 << 21), rank, np.float32) for rank in range(3)]
    _check(THREE, [GATHER] * 3, arrays)
    _check(THREE, [SUM] * 3, arrays)


def test_ranks_of_one_process_beside_others() -> None:
    links = joined([[0, 3], [1], [2, 4]])
    _check(links, [SUM] * 5, [brought_by(rank) for rank in (0, 3, 1, 2, 4)])
    for one in links:
        one.close()


@pytest.mark.parametrize("links", ["in process", "tcp"])
def test_sockets_at_different_collectives_are_named(links: str) -> None:
    runs = [bringing([(op, brought_by(rank))] * 2, []) for rank, op in enumerate((SUM, replace(SUM, name="other")))]
    here = [in_process(2)] if links == "in process" else joined([[0], [1]])
    errors = [str(end.exception()) for end in together(here, runs)]
    assert "socket 0 is at sum all_reduce, socket 1 at other all_reduce" in errors[0]
    assert "socket 1 is at other all_reduce, socket 0 at sum all_reduce" in errors[-1] or "socket 0 is" in errors[-1]


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_dropped_collective_is_found(dropped: int) -> None:
    ops = [SUM, GATHER, replace(SUM, name="last")]
    runs = [bringing([(op, brought_by(rank)) for op in ops], []) for rank in range(3)]
    runs[1] = bringing([(op, brought_by(1)) for op in ops if op is not ops[dropped]], [])
    errors = [end.exception() for end in together(joined([[0], [1], [2]]), runs)]
    at = [*ops[dropped + 1 :], None][0]
    other = f"{at.name} {at.meaning}" if at else "the end of its run"
    expected = f"socket 0 is at {ops[dropped].name} {ops[dropped].meaning}, socket 1 at {other}"
    assert all(isinstance(error, InvariantError | LinkError) for error in errors)
    assert any(expected in str(error) for error in errors), errors


def test_a_rank_here_that_ends_before_the_others_is_found() -> None:
    runs = [bringing([(SUM, brought_by(rank))] * (rank + 1), []) for rank in range(2)]
    with pytest.raises(InvariantError, match="socket 0 is at the end of its run, socket 1 at sum all_reduce"):
        drive(runs, in_process(2))


@pytest.mark.parametrize(("op", "other"), [(SUM, (7, 19)), (GATHER, (6, 20)), (LOSS, (9, 20))])
def test_arrays_that_do_not_fit_are_named(op: Operator, other: tuple[int, int]) -> None:
    runs = [bringing([(op, brought_by(0))], []), bringing([(op, brought_by(1, *other))], [])]
    with pytest.raises(InvariantError, match=rf"^{op.name}: of shape \(.*\) at socket 0, \(.*\) at socket 1$"):
        drive(runs, in_process(2))


def test_a_run_that_fails_tells_the_others_why() -> None:
    def failing():
        yield SUM, brought_by(1)
        raise ZeroDivisionError("of all things")

    runs = [bringing([(SUM, brought_by(0))] * 2, []), failing()]
    errors = [end.exception() for end in together(joined([[0], [1]]), runs)]
    assert str(errors[0]) == "socket 0: socket 1 stopped: of all things"
    assert isinstance(errors[1], ZeroDivisionError)


# What timing mode charges


def _collectives(by_rank: Sequence[Sequence[Operator]]) -> list[list[Operator]]:
    """Of each collective each rank's operator."""
    return [list(ops) for ops in zip(*([op for op in ops if op.collective] for ops in by_rank), strict=True)]


def _sent(ops: Sequence[Operator], step: Step) -> list[tuple[int, float]]:
    """Of each rank the elements that it sends, and those that it is charged for."""
    links, random = in_process(len(ops)), np.random.default_rng(1)
    arrays = [random.normal(size=shape_of(op.inputs[0], step)).astype(np.float32) for op in ops]
    _check([links], ops, arrays)
    found = []
    for rank, op in enumerate(ops):
        charged = COLLECTIVES[op.collective](op.message.at(step), op.members or len(ops)).bytes_sent
        nbytes = sum(sent for (at, _), sent in links.sent.items() if at == rank)
        found.append((nbytes // 4, charged / DTYPES[op.inputs[0].dtype]))
    return found


@pytest.mark.parametrize("step", [Step(1, 9, 9, 1), Step(5, 60, 60, 5), Step(48, 48 * 49 // 2, 48, 1)])
@pytest.mark.parametrize("degree", [1, 2, 3, 5, 8, 16])
def test_elements_sent_are_those_charged(degree: int, step: Step) -> None:
    """Of all-reduces less than one element per peer apart, over all members not at all; of gathers exactly."""
    shape = replace(load_shape("llama-3-8b"), vocabulary=12_827)
    graphs = [decoder(shape, degree, rank) for rank in range(degree)]
    all_collectives = _collectives([[op for block in graph.blocks for op in block.operators] for graph in graphs])
    assert len(all_collectives) == (4 if degree > 1 else 0)
    for ops in all_collectives:
        found = _sent(ops, step)
        apart = [abs(sent - charged) for sent, charged in found]
        assert max(apart) < (1e-6 if ops[0].collective == "all_gather" else max(degree - 2, 1e-6)), (ops[0].name, found)
        assert sum(sent for sent, _ in found) == pytest.approx(sum(charged for _, charged in found), rel=1e-12)


@pytest.mark.parametrize("degree", [2, 8, 16])
def test_elements_sent_in_training_are_those_charged(degree: int) -> None:
    """Losses are shared out by rows of 3; KV heads are held by as many sockets each, so charged as they are sent."""
    step = training_step(1, 7)
    graphs = [train(GQA, degree, rank) for rank in range(degree)]
    names = set()
    for ops in _collectives([[op for block in graph.blocks for op in block.operators] for graph in graphs]):
        names.add(ops[0].meaning)
        row = 3 if ops[0].meaning == "log_sum_exp" else 1
        apart = [abs(sent - charged) for sent, charged in _sent(ops, step)]
        assert max(apart) < max(row * (degree - 2), 1e-6), (ops[0].name, apart)
    assert names == {"all_reduce", "log_sum_exp", *(["shared_heads"] if degree > 4 else [])}


def test_kv_heads_held_by_unequal_numbers_of_sockets_are_charged_as_the_most_shared() -> None:
    """Of 2 KV heads of 5 query heads each, 2 sockets hold one and 3 the other; socket 1 holds both."""
    shape, under = replace(GQA, hidden=20, heads=10, kv_heads=2, head_dim=4), 0
    graphs = [train(shape, 4, rank) for rank in range(4)]
    for ops in _collectives([[op for block in graph.blocks for op in block.operators] for graph in graphs]):
        if ops[0].meaning == "shared_heads":
            for sent, charged in _sent(ops, training_step(1, 7)):
                assert sent <= charged + 4
                under += sent < charged - 4
    assert under == 2  # keys and values


def test_shared_heads_over_tcp() -> None:
    graphs = [train(GQA, 8, rank) for rank in range(8)]
    links, step = joined([[rank] for rank in range(8)]), training_step(1, 7)
    for ops in _collectives([[op for block in graph.blocks for op in block.operators] for graph in graphs]):
        if ops[0].meaning == "shared_heads":
            _check(links, ops, [brought_by(rank, 1, shape_of(op.inputs[0], step)[0])[0] for rank, op in enumerate(ops)])
    for one in links:
        one.close()
