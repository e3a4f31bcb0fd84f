"""How fast does SmolLM2 decode on emulated sockets, and where does the time go? ``make bench`` prints a table.

Compute: between collectives. Links: taking part in them, without waiting. Waiting: for a peer that is not there yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from cluster.checkpoints.load import load_checkpoint
from cluster.checkpoints.smollm2 import fetch
from cluster.content import Expert, LocalMembers, Start, local_members
from cluster.content_actor import ContentActor, RayMembers, got, ray_members
from cluster.dialog import prompt_of, tensors_of
from cluster.generate import KV_RESERVE, Asked, generate
from cluster.peer_links.links import Links
from cluster.ray_backend import ray_session
from node.functional.serve import Sampling, Work
from node.options import RuntimeOptions
from node.spec_file import load_machine

TOKENS = 33  # the first is the prefill's: 32 decode steps
QUESTION = "Explain what a socket is."


class Clock:
    """Seconds of decode runs on one process: in all, in collectives, waiting in those."""

    def __init__(self, links: Links) -> None:
        self.seconds = dict.fromkeys(("all", "swap", "wait"), 0.0)
        for name, method in (("swap", "swap"), ("wait", "_wait")):
            setattr(links, method, partial(self.timed, name, getattr(links, method)))

    def timed(self, name: str, call: Any, *arguments: Any) -> Any:
        """What ``call`` returns; its time goes to ``name``."""
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.seconds[name] += time.perf_counter() - began


class TimedActor(ContentActor):
    """An actor that keeps the time of its decode runs."""

    def join(self, *arguments: Any) -> None:
        super().join(*arguments)
        self.clock = Clock(self._links)

    def serve(self, work: Work) -> list[list[list[int]]]:
        if not work.steps:
            found = super().serve(work)
            self.clock.seconds = dict.fromkeys(self.clock.seconds, 0.0)
            return found
        return self.clock.timed("all", super().serve, work)  # type: ignore[no-any-return]

    def times(self) -> dict[str, float]:
        return self.clock.seconds


def measured(sockets: int, start: Start) -> tuple[float, dict[str, float]]:
    """Decode steps per second of wall clock, and seconds by what they went to, over all processes."""
    checkpoint = load_checkpoint(fetch())
    given = [prompt_of(QUESTION, 0, checkpoint.tokenizer)]
    expert = Expert("smollm2", checkpoint.shape, partial(tensors_of, fetch()))
    machine = replace(load_machine("sn40l-node"), sockets=sockets)
    stamps: list[float] = []
    asked = Asked(machine, [expert], given, TOKENS, Sampling(), RuntimeOptions(kv_reserve=KV_RESERVE))
    times: dict[str, float] = {}

    @contextmanager
    def timed(*arguments: Any) -> Iterator[Any]:
        with start(*arguments) as members:
            if isinstance(members, LocalMembers):
                clock = Clock(members.links)
                members.serve = partial(clock.timed, "all", members.serve)  # type: ignore[method-assign]
            yield members
            if isinstance(members, LocalMembers):
                times.update(clock.seconds)
            else:
                assert isinstance(members, RayMembers)
                for found in got([actor.times.remote() for actor in members._actors]):
                    times.update({name: times.get(name, 0.0) + seconds for name, seconds in found.items()})

    generate(asked, lambda _prompt, _token: stamps.append(time.perf_counter()), timed)
    return (len(stamps) - 1) / (stamps[-1] - stamps[0]), times


def main() -> None:
    """One socket and eight in this process, eight as Ray actors on this machine."""
    import cluster.content_actor as shells  # noqa: PLC0415 - its actor is swapped for one with a clock

    shells.ContentActor = TimedActor  # type: ignore[misc]
    print(f"SmolLM2-135M-Instruct, batch 1, {TOKENS - 1} decode steps after the first token")
    print(f"{'':30}{'tokens/s':>10}{'of 1 local':>12}{'compute':>10}{'links':>8}{'waiting':>9}")
    first = 0.0
    with ray_session(None):
        for name, sockets, start in (
            ("1 socket, local", 1, local_members),
            ("8 sockets, local", 8, local_members),
            ("8 sockets, 8 Ray actors", 8, partial(ray_members, sockets_per_actor=1)),
            ("8 sockets, an actor per core", 8, ray_members),
        ):
            rate, times = measured(sockets, start)
            first = first or rate
            whole = times["all"] or 1.0
            parts = (whole - times["swap"], times["swap"] - times["wait"], times["wait"])
            shares = "".join(f"{part / whole:>{width}.0%}" for part, width in zip(parts, (10, 8, 9), strict=True))
            print(f"{name:30}{rate:>10.1f}{rate / first:>12.2f}{shares}")


if __name__ == "__main__":
    main()
