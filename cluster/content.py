"""Sockets with content in this process: where their experts' weights come from, and the group they make."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cluster.tiers import tiers_of
from node.dataflow.graph import Operator
from node.deployment import Deployment
from node.functional.members import LocalMembers
from node.functional.serve import Sampling
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


@contextlib.contextmanager
def local_members(experts: Sequence[Expert], deployment: Deployment, sampling: Sampling) -> Iterator[Members]:
    """All sockets of the group in this process."""
    with tempfile.TemporaryDirectory(prefix="coe-tiers-") as folder:
        whole = Whole(experts)
        sockets = [socket_of(whole, deployment, rank, Path(folder)) for rank in range(deployment.degree)]
        yield LocalMembers(sockets, deployment.settings.programs, sampling)
