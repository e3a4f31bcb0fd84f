"""The runs of the sockets that this process has, from collective to collective over their links."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TypeVar

from cluster.peer_links.collectives import collective
from cluster.peer_links.links import NOTHING, Links, Post, Received
from node.dataflow.execute import Exchange
from node.dataflow.meaning.operands import Array

END = ("the end", "of its run")


T = TypeVar("T")


def drive(runs: Sequence[Exchange[T]], links: Links) -> list[T]:
    """Run ``runs``, one for each rank of ``links.here``, until all of the group are at their end; what each returns.

    Raises what a run raises, ``InvariantError`` where sockets are at different collectives, ``LinkError`` where a link
    is lost or a peer stopped; then the peers are told, and the links closed.
    """
    ended: dict[int, T] = {}
    try:
        steps = {rank: _steps(run, rank, links.members, ended) for rank, run in zip(links.here, runs, strict=True)}
        posts = {rank: next(one) for rank, one in steps.items()}
        while posts:
            for rank, received in links.swap(_ready(posts, links.here)).items():
                post = _sent(steps[rank], received)
                if post is None:
                    del posts[rank]
                else:
                    posts[rank] = post
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


def _ready(posts: Mapping[int, Post], here: Sequence[int]) -> Mapping[int, Post]:
    """Those who need nobody here that is elsewhere: a socket that shares no KV head goes ahead of those who do.

    If there are none, all, to be found at different collectives.
    """
    going = dict(posts)
    while True:
        waiting = {
            rank
            for rank, post in going.items()
            for peer in post.sources
            if peer in here and (peer not in going or going[peer].label != post.label)
        }
        if not waiting:
            return going or posts
        going = {rank: post for rank, post in going.items() if rank not in waiting}


def _sent(steps: Generator[Post, Received, None], received: Received) -> Post | None:
    try:
        return steps.send(received)
    except StopIteration:
        return None
