"""How long an all-reduce takes over real links: eight processes on this machine, and where the time goes.

Rank 0's view: wall clock, its own time in Python and in the kernel, how often it waited and was pushed aside.
``direct`` and ``two hops`` are the two kinds of all-reduce; the first sends four times the bytes. ``ring`` is what peer
links do not do: 14 hops in place of 2, of as many bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np

from cluster.peer_links.collectives import Steps, collective
from cluster.peer_links.joining import Listener, join
from cluster.peer_links.links import Links, Post
from node.dataflow.graph import Operator, share
from node.dataflow.meaning.operands import Array
from node.dataflow.operators import activation
from node.dataflow.operators import collective as operator

MEMBERS = 8
COLUMNS = ("us", "us Python", "us kernel", "waits", "preempted")
CASES = ((576, 1000), (4096, 1000), (1 << 18, 50))  # float32 values, times
OP = operator("sum", "all_reduce", activation("part", 1), activation("whole", 1))
LABEL = (OP.name, OP.meaning)


def ring(op: Operator, array: Array, rank: int, members: int) -> Steps:
    """Each share goes around and is added to, then goes around again."""
    del op
    after, before = (rank + 1) % members, (rank - 1) % members
    spans = [share(len(array), members, part) for part in range(members)]
    made = array.copy()
    for hop in range(2 * members - 2):
        out, into = (spans[(rank - hop - back) % members] for back in (0, 1))
        came = yield Post(LABEL, {after: made[out.start : out.stop]}, [before])
        summing = hop < members - 1
        held = made[into.start : into.stop]
        made[into.start : into.stop] = held + came[before] if summing else came[before]
    return made


def direct(op: Operator, array: Array, rank: int, members: int) -> Steps:
    """Everything to everybody."""
    return collective(replace(op, direct=True), array, rank, members)


WAYS: dict[str, Callable[[Operator, Array, int, int], Steps]] = {
    "direct": direct,
    "two hops": collective,
    "ring": ring,
}


def once(links: Links, way: str, array: Array) -> Array:
    """One all-reduce on this rank."""
    steps = WAYS[way](OP, array, links.here[0], MEMBERS)
    post = next(steps)
    while True:
        came = links.swap({links.here[0]: post})
        try:
            post = steps.send(came[links.here[0]])
        except StopIteration as end:
            made: Array = end.value
            return made


def measured(links: Links, way: str, values: int, times: int) -> tuple[float, ...]:
    """Per all-reduce: us of wall clock, in Python and in the kernel; waits and preemptions."""
    array = np.full(values, links.here[0], dtype=np.float32)
    for _ in range(10):
        once(links, way, array)
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(times):
        once(links, way, array)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    switches = (after.ru_nvcsw - before.ru_nvcsw, after.ru_nivcsw - before.ru_nivcsw)
    return (*(seconds * 1e6 / times for seconds in (wall, user, system)), *(count / times for count in switches))


def rank_process(rank: int, pipe: Connection, secret: bytes) -> None:
    """Measure all cases; rank 0 prints."""
    listener = Listener()
    pipe.send(listener.address)
    links = join(listener, (rank,), pipe.recv(), secret, connect_limit_s=60)
    for values, times in CASES:
        for way in WAYS:
            found = measured(links, way, values, times)
            if rank == 0:
                print(f"{values:7} {way:>11} " + " ".join(f"{number:11.1f}" for number in found), flush=True)
    links.close()


def main() -> None:
    """Print a table."""
    print(f"all-reduce over {MEMBERS} processes, {os.cpu_count()} cores")
    print(f"{'values':>7} {'way':>11} " + " ".join(f"{name:>11}" for name in COLUMNS))
    context, secret = multiprocessing.get_context("spawn"), os.urandom(32)
    pipes = [context.Pipe() for _ in range(MEMBERS)]
    ranks = [context.Process(target=rank_process, args=(rank, pipes[rank][1], secret)) for rank in range(MEMBERS)]
    for one in ranks:
        one.start()
    addresses = {rank: own.recv() for rank, (own, _) in enumerate(pipes)}
    for own, _ in pipes:
        own.send(addresses)
    for one in ranks:
        one.join()


if __name__ == "__main__":
    main()
