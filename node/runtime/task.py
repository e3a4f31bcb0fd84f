"""What the sockets of a group are at: a task is a sequence of stages, each of which takes time."""

from __future__ import annotations

from collections.abc import Sequence

from node.stream import Range
from node.units import Picoseconds

# stages; from the router's prefill on they are runs
COPY, CALL, SWAP_OUT, SWAP_IN, LOAD, ROUTER_PREFILL, ROUTER_DECODE, PREFILL, AGAIN, MIXED, DECODE = range(11)

Prompts = tuple[Sequence[int], Sequence[int]]  # requests by number, how many tokens each has
NOBODY: Prompts = ((), ())


class Task:
    """The ``stages`` still to come, the next one last, and the requests they are for, by number.

    ``lengths`` of their prompts; ``kv``: their KV ranges (the router has one for all); ``calls`` to the host; ``steps``
    of the router's decode still to come; ``started``, ``copied``, ``called``: when it began, and when its copy and its
    calls were over.
    """

    __slots__ = ("called", "calls", "copied", "expert", "kv", "lengths", "stages", "started", "steps", "who")

    def __init__(
        self, stages: list[int], expert: int, of: Prompts, kv: Sequence[Range], calls: int = 0, steps: int = 0
    ) -> None:
        self.stages, self.expert, self.kv, self.calls, self.steps = stages, expert, kv, calls, steps
        self.who, self.lengths = of
        self.started: Picoseconds = 0
        self.copied: Picoseconds = 0
        self.called: Picoseconds = 0


def router_task(of: Prompts, router: int, kv: list[Range], router_tokens: int, overhead: bool) -> Task:
    """A run of the router: a call, a prefill of all prompts, then a decode step per further token."""
    stages = [ROUTER_DECODE] * (router_tokens > 1) + [ROUTER_PREFILL] + [CALL] * overhead
    return Task(stages, router, of, kv, int(overhead), router_tokens - 1)


def serve_task(of: Prompts, expert: int, miss: bool, calls: int, kv: list[Range]) -> Task:
    """The start of requests on their expert: its copy where it is missing, calls, a prefill of all prompts."""
    stages = [PREFILL]
    if calls:
        stages.append(CALL)
    if miss:
        stages.append(COPY)
    return Task(stages, expert, of, kv, calls)


def decode_task(expert: int) -> Task:
    """Steps of the running batch."""
    return Task([DECODE], expert, NOBODY, ())
