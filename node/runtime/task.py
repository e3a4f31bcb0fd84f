"""What the sockets of a group are at: a task is a sequence of stages, each of which takes time."""

from __future__ import annotations

from dataclasses import dataclass

from node.runtime.served import Served

# stage -> what the time of the task's requests is charged to
STAGES = {
    "copy": "switch",
    "call": "call_overhead",
    "router_prefill": "router",
    "router_decode": "router",
    "prefill": "prefill",
    "decode": "decode",
}


@dataclass(slots=True)
class Task:
    """The stages still to come, the one under way first, and the requests they are for.

    ``calls`` to the host, ``kv``: symbol of the router's KV range, ``steps`` of decode still to come.
    """

    stages: list[str]
    requests: list[Served]
    expert: int
    calls: int = 0
    kv: int = 0
    steps: int = 0


def router_task(requests: list[Served], router: int, kv: int, router_tokens: int, overhead: bool) -> Task:
    """A run of the router: a call, a prefill of all prompts, then a decode step per further token."""
    stages = ["call"] * overhead + ["router_prefill"]
    return Task(stages, requests, router, int(overhead), kv, router_tokens - 1)


def serve_task(requests: list[Served], expert: int, miss: bool, calls: int) -> Task:
    """The start of requests on their expert: its copy where it is missing, calls, a prefill of all prompts."""
    return Task(["copy"] * miss + ["call"] * bool(calls) + ["prefill"], requests, expert, calls)
