"""Groups of sockets whose links are real TCP on loopback: in threads, or each rank in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from cluster.peer_links.drive import drive
from cluster.peer_links.joining import Listener, join
from cluster.peer_links.links import Links
from node.dataflow.batch import Batch
from node.dataflow.execute import Exchange, run
from node.dataflow.graph import Operator
from node.dataflow.meaning.exchange import exchange
from node.dataflow.operators import activation
from node.dataflow.operators import collective as operator
from node.dataflow.schedule import schedule
from node.models.decoder import decoder
from node.models.shape import Shape
from node.models.weights import shard
from tests.functional import Array, Group, group

SECRET = bytes(range(32))
SUM = operator("sum", "all_reduce", activation("part", 1), activation("whole", 1))
GATHER = operator("gather", "all_gather", activation("part", 1), activation("whole", 1))
TINY = Shape("tiny", 2, 20, 5, 1, 4, 30, 11, 64)
LENGTHS, TOKENS = (5, 2), (3, 1, 4, 1, 5, 9, 2)
Task = Callable[[Links, Connection], None]


def bringing(brought: Sequence[tuple[Operator, Array]], made: list[Array]) -> Exchange:
    """A run that brings one array after another and keeps what comes of them."""
    for op, array in brought:
        made.append((yield op, array))


def brought_by(rank: int, rows: int = 7, width: int = 20) -> Array:
    return np.random.default_rng(rank).normal(size=(rows, width)).astype(np.float32)


def joined(here: Sequence[Sequence[int]], **options: float) -> list[Links]:
    """Links over TCP between parties that have the ranks ``here``, all in this process."""
    listeners = [Listener() for _ in here]
    addresses = {rank: listener.address for ranks, listener in zip(here, listeners, strict=True) for rank in ranks}
    with ThreadPoolExecutor(len(here)) as pool:
        pairs = zip(here, listeners, strict=True)
        return [
            one.result() for one in [pool.submit(join, at, ranks, addresses, SECRET, **options) for ranks, at in pairs]
        ]


def together(links: Sequence[Links], runs: Sequence[Exchange]) -> list[Future[None]]:
    """Drive the runs, by rank, each party's in a thread; all have ended."""
    with ThreadPoolExecutor(len(links)) as pool:
        return [pool.submit(drive, [runs[rank] for rank in one.here], one) for one in links]


def _bits(array: Array) -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes()


def check(links: Sequence[Links], ops: Sequence[Operator], arrays: Sequence[Array]) -> None:
    """One collective over ``links``, by rank: the bits that ``exchange`` makes of whole arrays."""
    made: list[list[Array]] = [[] for _ in ops]
    ends = together(links, [bringing([one], to) for one, to in zip(zip(ops, arrays, strict=True), made, strict=True)])
    for end in ends:
        end.result()
    expected = exchange(list(zip(ops, arrays, strict=True)))
    assert [_bits(one) for (one,) in made] == [_bits(one) for one in expected]


@contextmanager
def processes(members: int, task: Task, **options: float) -> Iterator[list[tuple[BaseProcess, Connection]]]:
    """Each rank in a process that does ``task(links, pipe)``; none outlives the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.peers"])
    pipes = [context.Pipe() for _ in range(members)]
    ranks = [
        context.Process(target=_one, args=(rank, theirs, task, options), daemon=True)
        for rank, (_, theirs) in enumerate(pipes)
    ]
    try:
        for process in ranks:
            process.start()
        addresses = {rank: own.recv() for rank, (own, _) in enumerate(pipes)}
        for own, _ in pipes:
            own.send(addresses)
        yield [(process, own) for process, (own, _) in zip(ranks, pipes, strict=True)]
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _one(rank: int, pipe: Connection, task: Task, options: dict[str, float]) -> None:
    listener = Listener()
    pipe.send(listener.address)
    try:
        task(join(listener, (rank,), pipe.recv(), SECRET, connect_limit_s=60, **options), pipe)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def without_end(links: Links, pipe: Connection) -> None:
    """All-reduces for ever; says its process id after a few."""
    (rank,) = links.here

    def going() -> Exchange:
        for time in range(10**9):
            if time == 5:
                pipe.send(os.getpid())
            yield SUM, brought_by(rank)

    drive([going()], links)


def serving(links: Links, pipe: Connection) -> None:
    """This rank's prefill of a tiny llama; sends its logits."""
    (rank,) = links.here
    sockets = served(links.members)
    drive([prefill(sockets, rank)], links)
    pipe.send(sockets.made("head.all_logits", rank))


def served(degree: int) -> Group:
    """A tiny llama with random weights, the same for every degree."""

    def weights(rank: int, _: str, layer: int, op: Operator) -> Array:
        whole = np.random.default_rng([layer, *op.name.encode()]).normal(size=WHOLES[op.name])
        return shard(op, whole.astype(np.float32) / 3, TINY, degree, rank)

    return group(lambda rank: decoder(TINY, degree, rank), weights, degree)


def prefill(sockets: Group, rank: int) -> Exchange:
    """The run of one rank."""
    content = sockets.contents[rank]
    content.batch, content.tokens = Batch(LENGTHS, (0, 0)), np.array(TOKENS)
    return run(schedule(sockets.kernels(rank, decoding=False), content.batch.step).launches, content)


WHOLES = {
    op.name: (op.matrix.rows, op.matrix.columns)
    for block in decoder(TINY).blocks
    for op in block.operators
    if op.matrix
}
