"""Sockets with content in processes of their own: Ray actors that reach one another over peer links."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from cluster.backends import SocketLostError
from cluster.content import Checkpointed, Deployed, Whole, agreed, apply, socket_of
from cluster.metrics.of_sockets import Found, Served
from cluster.metrics.of_sockets import serve as serve_metrics
from cluster.metrics.samples import Sample
from cluster.peer_links.drive import drive
from cluster.peer_links.joining import Address, Listener, join
from cluster.peer_links.links import Links
from cluster.socket_actor import share_out
from node.dataflow.meaning.operands import Array
from node.events import Command
from node.functional.one_pass import Pass, through
from node.functional.serve import Sampling, Work, serve
from node.functional.texts import Members

SECRET_BYTES = 32
AT_ONCE = 64  # commands in one call
TIME_LIMIT_S = 600.0


class ContentActor:
    """The sockets ``ranks`` of ``deployment``'s one group; they exchange among themselves without a connection."""

    def __init__(
        self, ranks: Sequence[int], deployment: Deployed, experts: Sequence[Checkpointed], sampling: Sampling
    ) -> None:
        self._ranks, self._sampling = ranks, sampling
        self._programs = deployment.expert_programs
        self._folder = tempfile.TemporaryDirectory(prefix="coe-tiers-")
        whole = Whole(experts)
        self._sockets = [socket_of(whole, deployment, rank, Path(self._folder.name)) for rank in ranks]
        self._listener, self._links = Listener(), Links(ranks, len(ranks), {})

    def export(self, where: Served) -> None:
        """Serve metrics of its links from now on."""
        serve_metrics(where, self._found)

    def _found(self) -> Found:
        links = self._links
        by_pair = {"coe_link_bytes": links.sent, "coe_link_frames": links.frames}
        found: dict[str, list[Sample]] = {
            name: [(("0", str(rank), str(peer)), value) for (rank, peer), value in list(of.items())]
            for name, of in by_pair.items()
        }
        refused = list(links.refused.items())
        found["coe_link_refusals"] = [(("0", str(self._ranks[0]), reason), count) for reason, count in refused]
        return found

    def address(self) -> Address:
        """Where its peers call."""
        return self._listener.address

    def join(self, addresses: Mapping[int, Address], secret: bytes) -> None:
        """Make the links to the sockets of other actors; ``addresses`` by rank."""
        self._links = join(self._listener, self._ranks, addresses, secret, connect_limit_s=60.0)

    def apply(self, commands: Sequence[Command]) -> None:
        """Do commands that are no runs, in order."""
        for command in commands:
            apply(self._sockets, command, self._programs)

    def serve(self, work: Work) -> list[list[list[int]]]:
        """Do a run with all other sockets: of each here the tokens of each request."""
        return drive([serve(socket, work, self._sampling) for socket in self._sockets], self._links)

    def through(self, works: Sequence[Pass | None]) -> list[Array]:
        """Do a pass over images with all other sockets: of each here what came out."""
        return drive([through(*one) for one in zip(self._sockets, works, strict=True)], self._links)

    def stop(self) -> dict[tuple[int, int], int]:
        """End the links and the tiers; payload bytes sent, by (socket, peer)."""
        self._links.close()
        self._folder.cleanup()
        return dict(self._links.sent)


class RayMembers:
    """A group of ``actors``, in the order of their ranks, each with so many. See ``node.functional.texts.Members``."""

    def __init__(self, actors: Sequence[Any], sizes: Sequence[int]) -> None:
        self._actors, self._sizes = actors, sizes
        self._commands: list[Command] = []
        self._pending: list[Any] = []

    def apply(self, command: Command) -> None:
        """Actors do what they are told in order: nothing is waited for before the next run."""
        self._commands.append(command)
        if len(self._commands) == AT_ONCE:
            self._send()

    def serve(self, work: Work) -> list[list[int]]:
        """All at once; they exchange among themselves."""
        self._send()
        runs = [actor.serve.remote(work) for actor in self._actors]
        found = got([*self._pending, *runs])[len(self._pending) :]
        self._pending = []
        return agreed([tokens for of_actor in found for tokens in of_actor])

    def through(self, works: Sequence[Pass | None]) -> list[Array]:
        """All at once; they exchange among themselves."""
        self._send()
        ends = list(accumulate(self._sizes))
        shares = [works[end - size : end] for size, end in zip(self._sizes, ends, strict=True)]
        runs = [actor.through.remote(share) for actor, share in zip(self._actors, shares, strict=True)]
        found = got([*self._pending, *runs])[len(self._pending) :]
        self._pending = []
        return [array for of_actor in found for array in of_actor]

    def _send(self) -> None:
        if self._commands:
            self._pending += [actor.apply.remote(self._commands) for actor in self._actors]
            self._commands = []


def got(references: Sequence[Any]) -> list[Any]:
    """What Ray calls return; what one of them raises, as it was raised there; ``SocketLostError`` without an answer."""
    try:
        found: list[Any] = ray.get(list(references), timeout=TIME_LIMIT_S)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
        raise SocketLostError(f"the actor of a socket is lost: {type(error).__name__}") from None
    return found


@contextlib.contextmanager
def ray_members(
    experts: Sequence[Checkpointed],
    deployment: Deployed,
    sampling: Sampling,
    sockets_per_actor: int | None = None,
    exporter: Served | None = None,
) -> Iterator[Members]:
    """Ray actors with so many sockets each, on the cluster that this process is connected to.

    If it is not said how many, there are as many actors as the cluster has cores, and one for each socket at most: more
    would only wait for each other.
    """
    remote = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(ContentActor)
    if sockets_per_actor is None:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cores = max(1, int(resources.get("CPU", 1)))
        sockets_per_actor = -(-deployment.degree // cores)
    shares = share_out(deployment.degree, sockets_per_actor)
    actors: list[Any] = [remote.remote(ranks, deployment, list(experts), sampling) for ranks in shares]
    try:
        found = got([actor.address.remote() for actor in actors])
        addresses = {rank: address for ranks, address in zip(shares, found, strict=True) for rank in ranks}
        secret = os.urandom(SECRET_BYTES)
        got([actor.join.remote(addresses, secret) for actor in actors])
        if exporter is not None:
            got([actor.export.remote(exporter) for actor in actors])
        yield RayMembers(actors, [len(ranks) for ranks in shares])
        got([actor.stop.remote() for actor in actors])
    finally:
        for actor in actors:
            ray.kill(actor)
