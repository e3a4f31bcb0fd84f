"""Counts experts that come to a node's memory and go, from the commands that its sockets did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from node.deployment import Deployment
from node.events import ROW, Ints, Kind, Tier
from node.planned import Planned

COPY, LOAD, FREE, RECEIVE = int(Kind.COPY), int(Kind.LOAD), int(Kind.FREE), int(Kind.RECEIVE)
HBM = int(Tier.HBM)


class Came(NamedTuple):
    """Since the beginning, by expert: ``activations``, ``evictions``, copies ``resident`` in HBM; ``homes`` in DDR."""

    activations: Ints
    evictions: Ints
    resident: Ints
    homes: int


class Comings:
    """Of the experts of ``deployment``."""

    def __init__(self, deployment: Deployment) -> None:
        self._count = deployment.catalogue.count
        self._activations, self._evictions, self._resident = np.zeros((3, self._count), dtype=np.int64)
        self._homes = 0

    def observe(self, planned: Iterable[Planned]) -> None:
        """Take what groups did in a window; most commands are of KV cache, whose symbols are above all experts'."""
        for plan in planned:
            found = plan.columns[:, plan.columns[ROW["symbol"]] < self._count]
            symbol, kind, in_hbm = found[ROW["symbol"]], found[ROW["kind"]], found[ROW["tier"]] == HBM
            copied, loaded, freed = kind == COPY, kind == LOAD, kind == FREE
            self._activations += self._times(symbol[copied])
            self._evictions += self._times(symbol[freed & in_hbm])
            self._resident += self._times(symbol[copied | (loaded & in_hbm)]) - self._times(symbol[freed & in_hbm])
            self._homes += int(((loaded & ~in_hbm) | (kind == RECEIVE)).sum()) - int((freed & ~in_hbm).sum())

    def so_far(self) -> Came:
        """What came of it."""
        return Came(self._activations.copy(), self._evictions.copy(), self._resident.copy(), self._homes)

    def _times(self, experts: Ints) -> Ints:
        return np.bincount(experts, minlength=self._count)
