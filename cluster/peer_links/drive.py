"""The runs of the sockets that this process has, from collective to collective over their links."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

from cluster.peer_links.collectives import collective
from cluster.peer_links.links import NOTHING, Links, Post, Received
from node.dataflow.execute import Exchange
from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

END = ("the end", "of its run")


T = TypeVar("T")


def drive(runs: Sequence[Exchange[T]], links: Links) -> list[T]:
    """Run ``runs``, one for each rank of ``links.here``, until all of the group are at their end; what each returns.

    Raises what a run raises, ``InvariantError`` where sockets are at different collectives, ``LinkError`` where a link
    is lost or a peer stopped; then the peers are told, and the links closed.
    """
    try:
        ended: dict[int, T] = {}
        steps = [_steps(run, rank, links.members, ended) for rank, run in zip(links.here, runs, strict=True)]
        posts = [next(one) for one in steps]
        while posts:
            received = links.swap(posts)
            posts = [post for one, got in zip(steps, received, strict=True) if (post := _sent(one, got)) is not None]
            if posts and len(posts) < len(steps):
                raise InvariantError(f"{len(steps) - len(posts)} of {len(steps)} sockets ended before the others")
    except BaseException as error:
        links.stop(error)
        raise
    return [ended[rank] for rank in links.here]


def _steps(run: Exchange[T], rank: int, members: int, ended: dict[int, T]) -> Generator[Post, Received, None]:
    """All that one rank sends and takes; at the end it waits for the others."""
    made: Array | None = None
    while rank not in ended:
        try:
            brought = next(run) if made is None else run.send(made)
        except StopIteration as stop:
            ended[rank] = stop.value
        else:
            made = yield from collective(*brought, rank, members)
    others = [peer for peer in range(members) if peer != rank]
    yield Post(END, dict.fromkeys(others, NOTHING), others)


def _sent(steps: Generator[Post, Received, None], received: Received) -> Post | None:
    try:
        return steps.send(received)
    except StopIteration:
        return None
