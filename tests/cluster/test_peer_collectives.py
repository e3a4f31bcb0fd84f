"""Do collectives over links make what ``exchange`` makes, and send what timing mode charges?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.peer_links.connection import LinkError
from cluster.peer_links.drive import drive
from cluster.peer_links.links import Links, in_process
from node.dataflow.graph import Operator, share
from node.dataflow.meaning.exchange import exchange
from node.errors import InvariantError
from node.models.shape import Shape
from tests.peers import GATHER, SUM, bringing, brought_by, check, joined, together

LOSS = replace(SUM, name="loss", function="log_sum_exp")
DIRECT, DIRECT_LOSS = replace(SUM, direct=True), replace(LOSS, direct=True)
GQA = Shape("gqa", 2, 32, 16, 4, 4, 24, 40, 64)


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 40))
def test_sums_and_gathers_in_process(members: int, rows: int, width: int) -> None:
    links = [in_process(members)]
    for op in (SUM, DIRECT):
        check(links, [op] * members, [brought_by(rank, rows, width) for rank in range(members)])
    widths = [len(share(width, members, rank)) for rank in range(members)]
    check(links, [GATHER] * members, [brought_by(rank, rows, widths[rank]) for rank in range(members)])
    for op in (LOSS, DIRECT_LOSS):
        check(links, [op] * members, [brought_by(rank, max(rows, 1), 3) for rank in range(members)])


@pytest.mark.parametrize("members", [1, 2, 3, 5, 8, 13, 16])
def test_sums_and_gathers_over_tcp(members: int) -> None:
    links = joined([[rank] for rank in range(members)])
    for width in (1, 5, 20, 4097):
        for op in (SUM, DIRECT):
            check(links, [op] * members, [brought_by(rank, 3, width) for rank in range(members)])
    np.testing.assert_allclose(exchange([(SUM, np.ones((2, 2), np.float32))] * 3)[0], 3)
    check(links, [GATHER] * members, [brought_by(rank, 3, (rank * 7) % 5) for rank in range(members)])
    for op in (LOSS, DIRECT_LOSS):
        check(links, [op] * members, [brought_by(rank, 11, 3) for rank in range(members)])
    assert all(one.refused == {} for one in links)
    for one in links:
        one.close()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(0, 300))
def test_any_size_over_tcp(rows: int, width: int) -> None:
    for op in (SUM, DIRECT):
        check(THREE, [op] * 3, [brought_by(rank, rows, width) for rank in range(3)])
    check(THREE, [GATHER] * 3, [brought_by(rank, rows, (width + 2 - rank) // 3) for rank in range(3)])


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
    check(THREE, [GATHER] * 3, arrays)
    check(THREE, [SUM] * 3, arrays)
    check(THREE, [DIRECT] * 3, arrays)


def test_ranks_of_one_process_beside_others() -> None:
    links = joined([[0, 3], [1], [2, 4]])
    for op in (SUM, DIRECT):
        check(links, [op] * 5, [brought_by(rank) for rank in (0, 3, 1, 2, 4)])
    for one in links:
        one.close()


@pytest.mark.parametrize("links", ["in process", "tcp"])
def test_sockets_at_different_collectives_are_named(links: str) -> None:
    runs = [bringing([(op, brought_by(rank))] * 2, []) for rank, op in enumerate((SUM, replace(SUM, name="other")))]
    here = [in_process(2)] if links == "in process" else joined([[0], [1]])
    errors = [str(end.exception()) for end in together(here, runs)]
    assert "socket 0 is at sum all_reduce, socket 1 at other all_reduce" in errors[0]
    assert "socket 1 is at other all_reduce, socket 0 at sum all_reduce" in errors[-1] or "socket 0 is" in errors[-1]


@pytest.mark.parametrize("here", [[[0, 1, 2]], [[0], [1], [2]]], ids=["in process", "tcp"])
def test_a_socket_that_takes_another_kind_of_all_reduce_is_named(here: list[list[int]]) -> None:
    ops = [SUM, DIRECT, SUM]
    runs = [bringing([(op, brought_by(rank))], []) for rank, op in enumerate(ops)]
    errors = [end.exception() for end in together([in_process(3)] if len(here) == 1 else joined(here), runs)]
    assert all(isinstance(error, InvariantError | LinkError) for error in errors)
    kinds = "socket 0 is at sum all_reduce, socket 1 at sum direct all_reduce"
    assert any(kinds in str(error) for error in errors), errors


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


@pytest.mark.parametrize(("op", "other"), [(SUM, (7, 19)), (DIRECT, (7, 19)), (GATHER, (6, 20)), (LOSS, (9, 20))])
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
