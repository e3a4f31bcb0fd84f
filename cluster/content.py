"""Sockets with content in this process: where their experts' weights come from, and the group they make."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from cluster.peer_links.drive import drive
from cluster.peer_links.links import in_process
from cluster.tiers import tiers_of
from node.dataflow.graph import Operator
from node.errors import InvariantError
from node.events import Command, Kind
from node.functional.one_pass import Pass, through
from node.functional.serve import Sampling, Work, serve
from node.functional.socket import ContentSocket, Shards
from node.functional.store import Store
from node.functional.texts import Members
from node.models.checkpoint import Tensors, weights_of
from node.models.one_pass import Learned
from node.models.shape import Shape
from node.models.weights import Array, shard
from node.spec import Machine


class Checkpointed(Protocol):
    """Where an expert's weights come from; it goes to whatever process has its sockets."""

    @property
    def open(self) -> Callable[[], Tensors]:
        """Gives its tensors by the names of its architecture."""

    def weights(self, operator: str, layer: int, tensors: Tensors) -> Array:
        """The whole weights of an operator."""

    def shard(self, op: Operator, whole: Array, degree: int, rank: int) -> Array:
        """What a socket holds of them."""


@dataclass(frozen=True)
class Expert:
    """A checkpoint of a decoder."""

    name: str
    shape: Shape
    open: Callable[[], Tensors]

    def weights(self, operator: str, layer: int, tensors: Tensors) -> Array:
        """See ``node.models.checkpoint``."""
        return weights_of(operator, layer, self.shape, tensors)

    def shard(self, op: Operator, whole: Array, degree: int, rank: int) -> Array:
        """See ``node.models.weights``."""
        return shard(op, whole, self.shape, degree, rank)


@dataclass(frozen=True)
class PassExpert:
    """A checkpoint of a ``model`` of one pass."""

    model: Learned
    open: Callable[[], Tensors]

    def weights(self, operator: str, layer: int, tensors: Tensors) -> Array:
        """As the model says."""
        return self.model.weights(operator, layer, tensors)

    def shard(self, op: Operator, whole: Array, degree: int, rank: int) -> Array:
        """As the model says."""
        return self.model.shard(op, whole, degree, rank)


class Deployed(Protocol):
    """What sockets with content are made of: a ``Deployment``, or a ``PassDeployment``."""

    @property
    def machine(self) -> Machine:
        """The machine."""

    @property
    def degree(self) -> int:
        """Sockets of the group."""

    @property
    def expert_programs(self) -> tuple[int, ...]:
        """Of each expert its program."""

    def content(self, rank: int, tiers: tuple[Store, Store], shards: Shards) -> ContentSocket:
        """The content of a rank's socket."""


Start = Callable[[Sequence[Checkpointed], Deployed, Sampling], contextlib.AbstractContextManager[Members]]


class Whole:
    """Weights as checkpoints have them; the last that was read is kept, for the other sockets of the process."""

    def __init__(self, experts: Sequence[Checkpointed]) -> None:
        self._experts = experts
        self._opened: dict[int, Tensors] = {}
        self._read = lru_cache(maxsize=1)(self._whole)

    def shards(self, degree: int, rank: int) -> Shards:
        """What one of ``degree`` sockets holds of them."""

        def of_rank(expert: int, layer: int, op: Operator) -> Array:
            return self._experts[expert].shard(op, self._read(expert, layer, op.name), degree, rank)

        return of_rank

    def _whole(self, expert: int, layer: int, operator: str) -> Array:
        of = self._experts[expert]
        if expert not in self._opened:
            self._opened = {expert: of.open()}
        return of.weights(operator, layer, self._opened[expert])


def socket_of(whole: Whole, deployment: Deployed, rank: int, folder: Path) -> ContentSocket:
    """The socket of a rank; its DDR is a file in ``folder``."""
    return deployment.content(rank, tiers_of(deployment.machine, rank, folder), whole.shards(deployment.degree, rank))


def apply(sockets: Sequence[ContentSocket], command: Command, programs: Sequence[int]) -> None:
    """Have ``sockets`` do a command that is no run; ``programs`` of each expert."""
    program = programs[command.symbol] if command.symbol < len(programs) else 0
    if command.kind == Kind.LOAD:  # operator by operator, so that each is read once for all sockets
        for _ in zip_longest(*(socket.load(command, program) for socket in sockets)):
            pass
        return
    for socket in sockets:
        socket.apply(command, program)


def agreed(found: Sequence[list[list[int]]]) -> list[list[int]]:
    """The tokens that all sockets of a group chose; ``InvariantError`` where they differ."""
    for rank, tokens in enumerate(found):
        if tokens != found[0]:
            raise InvariantError(f"socket {rank} generated {tokens}, socket 0 {found[0]}")
    return found[0]


class LocalMembers:
    """All ``sockets`` of a group in this process; ``programs`` of each expert (``node.functional.texts.Members``)."""

    def __init__(self, sockets: Sequence[ContentSocket], programs: Sequence[int], sampling: Sampling) -> None:
        self.sockets, self._programs, self._sampling = sockets, programs, sampling
        self.links = in_process(len(sockets))

    def apply(self, command: Command) -> None:
        """One after another."""
        apply(self.sockets, command, self._programs)

    def serve(self, work: Work) -> list[list[int]]:
        """From collective to collective."""
        return agreed(drive([serve(socket, work, self._sampling) for socket in self.sockets], self.links))

    def through(self, works: Sequence[Pass | None]) -> list[Array]:
        """From collective to collective."""
        return drive([through(*one) for one in zip(self.sockets, works, strict=True)], self.links)


@contextlib.contextmanager
def local_members(experts: Sequence[Checkpointed], deployment: Deployed, sampling: Sampling) -> Iterator[Members]:
    """All sockets of the group in this process."""
    with tempfile.TemporaryDirectory(prefix="coe-tiers-") as folder:
        whole = Whole(experts)
        sockets = [socket_of(whole, deployment, rank, Path(folder)) for rank in range(deployment.degree)]
        try:
            yield LocalMembers(sockets, deployment.expert_programs, sampling)
        finally:
            for socket in sockets:  # whoever still knows of them must not keep 25 TB of addresses
                socket.ddr.close()
                socket.hbm.close()
