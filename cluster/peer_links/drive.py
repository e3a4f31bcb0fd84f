"""The runs of the sockets that this process has, from collective to collective over their links."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from cluster.peer_links.collectives import collective
from cluster.peer_links.links import NOTHING, Links, Post, Received
from node.dataflow.execute import Exchange
from node.errors import InvariantError

END = ("the end", "of its run")


def drive(runs: Sequence[Exchange], links: Links) -> None:
    """Run ``runs``, one for each rank of ``links.here``, until all of the group are at their end.

    Raises what a run raises, ``InvariantError`` where sockets are at different collectives, ``LinkError`` where a link
    is lost or a peer stopped; then the peers are told, and the links closed.
    """
    try:
        steps = [_steps(run, rank, links.members) for rank, run in zip(links.here, runs, strict=True)]
        posts = [next(one) for one in steps]
        while posts:
            received = links.swap(posts)
            posts = [post for one, got in zip(steps, received, strict=True) if (post := _sent(one, got)) is not None]
            if posts and len(posts) < len(steps):
                raise InvariantError(f"{len(steps) - len(posts)} of {len(steps)} sockets ended before the others")
    except BaseException as error:
        links.stop(error)
        raise


def _steps(run: Exchange, rank: int, members: int) -> Generator[Post, Received, None]:
    """All that one rank sends and takes; at the end it waits for the others."""
    brought = next(run, None)
    while brought is not None:
        made = yield from collective(*brought, rank, members)
        try:
            brought = run.send(made)
        except StopIteration:
            break
    others = [peer for peer in range(members) if peer != rank]
    yield Post(END, dict.fromkeys(others, NOTHING), others)


def _sent(steps: Generator[Post, Received, None], received: Received) -> Post | None:
    try:
        return steps.send(received)
    except StopIteration:
        return None
