"""Sockets with content in this process: where their experts' weights come from, and the group they make."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

from cluster.peer_links.drive import drive
from cluster.peer_links.links import in_process
from cluster.tiers import tiers_of
from node.dataflow.graph import Operator
from node.deployment import Deployment
from node.errors import InvariantError
from node.events import Command, Kind
from node.functional.serve import Sampling, Work, serve
from node.functional.socket import ContentSocket, Shards
from node.functional.texts import Members
from node.models.checkpoint import Tensors, weights_of
from node.models.shape import Shape
from node.models.weights import Array, shard


@dataclass(frozen=True)
class Expert:
    """A checkpoint; ``open`` gives its tensors by the names of its architecture, in whatever process asks."""

    name: str
    shape: Shape
    open: Callable[[], Tensors]


Start = Callable[[Sequence[Expert], Deployment, Sampling], contextlib.AbstractContextManager[Members]]


class Whole:
    """Weights as checkpoints have them; the last that was read is kept, for the other sockets of the process."""

    def __init__(self, experts: Sequence[Expert]) -> None:
        self._experts = experts
        self._opened: dict[int, Tensors] = {}
        self._read = lru_cache(maxsize=1)(self._whole)

    def shards(self, degree: int, rank: int) -> Shards:
        """What one of ``degree`` sockets holds of them."""

        def of_rank(expert: int, layer: int, op: Operator) -> Array:
            return shard(op, self._read(expert, layer, op.name), self._experts[expert].shape, degree, rank)

        return of_rank

    def _whole(self, expert: int, layer: int, operator: str) -> Array:
        of = self._experts[expert]
        if expert not in self._opened:
            self._opened = {expert: of.open()}
        return weights_of(operator, layer, of.shape, self._opened[expert])


def socket_of(whole: Whole, deployment: Deployment, rank: int, folder: Path) -> ContentSocket:
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


@contextlib.contextmanager
def local_members(experts: Sequence[Expert], deployment: Deployment, sampling: Sampling) -> Iterator[Members]:
    """All sockets of the group in this process."""
    with tempfile.TemporaryDirectory(prefix="coe-tiers-") as folder:
        whole = Whole(experts)
        sockets = [socket_of(whole, deployment, rank, Path(folder)) for rank in range(deployment.degree)]
        yield LocalMembers(sockets, deployment.settings.programs, sampling)
