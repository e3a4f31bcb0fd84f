"""What the groups of a node need to know to decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from node.dataflow.image import Images
from node.errors import InputError
from node.request import Ints, Requests
from node.runtime.paging import page_bytes
from node.runtime.policies import Eviction
from node.runtime.scheduler import Decision, Next, View
from node.runtime.service import Service
from node.runtime.sharding import ModelSize
from node.runtime.stay import Stay
from node.units import MOST_PS, Bytes, Picoseconds

_ENDLESS = 2**31  # tokens: more than any request has
PREEMPTIONS = ("recompute", "swap")
SWITCHING = ("expert", "program")
CALL_OVERHEADS = ("per_request", "per_batch", "none")


@dataclass(frozen=True)
class Settings:
    """By expert, and last by router where one runs: ``sizes`` and ``programs``.

    ``next_expert``: whom the scheduler would serve next, where experts are prefetched.
    ``future``: by expert the keys of its requests, where the eviction policy is the yardstick that knows them.
    ``partial``: whether a prefill begins as soon as its weights will come in time. ``stay``: how long experts stay.
    ``router``: the number that stands for the router among the experts; it generates ``router_tokens`` a call.
    ``prefill_chunk``: most tokens of a step (0: prompts by themselves, as they are); ``kv_block``: tokens of a page of
    KV cache (0: a range for each whole request); ``swap``: whether who makes room goes to DDR, or is computed again.
    ``rebalance``: every so often (ps) experts move between groups (0: never).
    ``queue_limit``: most who wait in a group (None: any number). ``shed_late``: whether one is turned away whose first
    token is due by its class of ``services`` and who still waits. ``images``: of compiled programs, where they are
    switched too (None: all are always there).
    """

    scheduler: Callable[[View, Picoseconds], Decision]
    eviction: Eviction
    batch: int
    fairness: Picoseconds
    call_overhead: str
    sizes: Sequence[ModelSize]
    programs: Sequence[int]
    router: int | None
    router_tokens: int
    partial: bool
    stay: Stay
    next_expert: Next | None = None
    future: Sequence[deque[int]] = ()
    services: Sequence[Service] = (Service(),)
    queue_limit: int | None = None
    shed_late: bool = False
    rebalance: Picoseconds = 0
    prefill_chunk: int = 0
    kv_block: int = 0
    swap: bool = False
    images: Images | None = None

    @property
    def continuous(self) -> bool:
        """Whether steps or KV cache are finer than whole prompts and whole requests."""
        return bool(self.prefill_chunk or self.kv_block)

    def deadlines(self, requests: Requests) -> list[Picoseconds]:
        """Of each request, when it is turned away if it still waits (ps); empty where nobody is."""
        if not self.shed_late:
            return []
        never = MOST_PS - int(requests.arrival.max(initial=0))
        promised = np.array([never if service.ttft is None else service.ttft for service in self.services])
        found: list[Picoseconds] = (requests.arrival + promised[requests.service]).tolist()
        return found


def check_lengths(requests: Requests, settings: Settings, kv_size: Bytes) -> None:
    """Every request's KV cache, and the router's for it, must fit the empty KV region; ``InputError`` otherwise."""
    sizes, block = settings.sizes, settings.kv_block
    room = kv_size
    if block:
        room -= kv_size % page_bytes(sizes, block)
    needed = kv_bytes(requests, sizes, block)
    if settings.router is not None:
        routing = requests.input_tokens + settings.router_tokens
        router = np.full_like(requests.expert, settings.router)
        needed = np.maximum(needed, _kv_bytes(routing, sizes, router, block))
    worst = int(needed.argmax())
    if needed[worst] > room:
        found = requests[worst]
        raise InputError(
            f"request {found.id} ({found.input_tokens} tokens in, {found.output_tokens} out) needs "
            f"{int(needed[worst]):,} bytes of KV cache per socket, but runtime.kv_reserve leaves {room:,}; "
            "raise runtime.kv_reserve, or set workload.over_context to clip or refuse"
        )


def kv_bytes(requests: Requests, sizes: Sequence[ModelSize], block: int = 0) -> Ints:
    """Of each request, the KV cache that its whole length takes on a socket; in pages of ``block`` tokens (0: none)."""
    return _kv_bytes(requests.input_tokens + requests.output_tokens, sizes, requests.expert, block)


def _kv_bytes(tokens: Ints, sizes: Sequence[ModelSize], expert: Ints, block: int) -> Ints:
    """``ModelSize.kv_bytes`` of many."""
    token = np.array([size.kv_token for size in sizes])[expert]
    window = np.array([_ENDLESS if size.window is None else size.window for size in sizes])[expert]
    needed: Ints = np.minimum(tokens, window)
    if not block:
        return token * needed
    page = page_bytes(sizes, block)
    paged: Ints = -(-needed // (page // token)) * page
    return paged
