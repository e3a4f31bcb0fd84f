"""Who waits for an expert, and who of them is let in: as many as there is KV cache for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from node.runtime.served import Served
from node.runtime.sharding import ModelSize
from node.units import Bytes, Picoseconds

Waiting = dict[int, deque[Served]]  # by expert, in order of arrival, never empty queues
Reserve = Callable[[Bytes, Picoseconds], int | None]  # the symbol of a KV range, where there is room for it


def wait(waiting: Waiting, served: Served) -> None:
    """Put a request where its number says: another group may be quicker to route a later one."""
    expert = served.request.expert
    queue = waiting.setdefault(expert, deque())
    queue.append(served)
    if len(queue) > 1 and queue[-2].request.id > served.request.id:
        waiting[expert] = deque(sorted(queue, key=lambda one: one.request.id))


def admit(
    waiting: Waiting, expert: int, most: int, size: ModelSize, reserve: Reserve, now: Picoseconds
) -> list[Served]:
    """Take up to ``most`` who wait for ``expert`` from their queue, each with a KV range for its whole length."""
    queue, admitted = waiting[expert], list[Served]()
    while len(admitted) < most:
        request = queue[0].request
        kv = reserve(size.kv_bytes(request.input_tokens + request.output_tokens), now)
        if kv is None:
            break
        queue[0].kv = kv
        queue[0].charge("queue", now)
        admitted.append(queue.popleft())
    if not queue:
        del waiting[expert]
    return admitted


def admit_to_router(
    unrouted: deque[Served], most: int, size: ModelSize, tokens: int, reserve: Reserve, now: Picoseconds
) -> tuple[list[Served], int]:
    """Take up to ``most`` newcomers, and the one KV range for all of them and the router's ``tokens`` for each."""
    for count in range(most, 0, -1):
        lengths = [unrouted[index].request.input_tokens for index in range(count)]
        kv = reserve(sum(size.kv_bytes(length + tokens) for length in lengths), now)
        if kv is not None:
            admitted = [unrouted.popleft() for _ in range(count)]
            for served in admitted:
                served.charge("queue", now)
            return admitted, kv
    return [], 0
