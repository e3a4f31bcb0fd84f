"""Which KV heads a socket shares with which others, and the pieces of their gradients that go between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from node.dataflow.attributes import Shared
from node.dataflow.graph import Operator, share
from node.dataflow.meaning.exchange import by_head
from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

ByHead = Mapping[int, Array]


@dataclass(frozen=True, slots=True)
class Sharing:
    """What ``rank`` holds: of each head its own gradient, flat, and the ranks that hold it."""

    name: str
    rank: int
    dim: int
    own: ByHead
    holders: Mapping[int, tuple[int, ...]]

    @classmethod
    def of(cls, op: Operator, array: Array, rank: int) -> Sharing:
        """Of the gradient ``array`` that ``rank`` brings to ``op``."""
        assert isinstance(op.attributes, Shared)
        own = {head: part.ravel() for head, part in by_head(op, array).items()}
        holders = dict(zip(op.attributes.heads, op.attributes.holders, strict=True))
        return cls(op.name, rank, op.attributes.dim, own, holders)

    @property
    def others(self) -> list[int]:
        """The ranks it shares a head with."""
        return sorted({peer for ranks in self.holders.values() for peer in ranks} - {self.rank})

    def to_sum(self) -> dict[int, Array]:
        """To each of the others: of the heads held by both, its piece."""
        return {peer: np.concatenate([self._piece(head, peer) for head in self._with(peer)]) for peer in self.others}

    def summed(self, came: Mapping[int, Array]) -> dict[int, Array]:
        """Of each head the sum of the own piece, in the order of ranks."""
        parts = {peer: self._split(peer, came[peer], self.rank) for peer in self.others}
        parts[self.rank] = {head: self._piece(head, self.rank) for head in self.own}
        return {head: reduce(np.add, [parts[peer][head] for peer in ranks]) for head, ranks in self.holders.items()}

    def to_gather(self, sums: ByHead) -> dict[int, Array]:
        """To each of the others the sums of the heads held by both."""
        return {peer: np.concatenate([sums[head] for head in self._with(peer)]) for peer in self.others}

    def gathered(self, came: Mapping[int, Array], sums: ByHead) -> Array:
        """The gradient with all heads summed."""
        parts = {peer: self._split(peer, came[peer], peer) for peer in self.others} | {self.rank: sums}
        whole = [np.concatenate([parts[peer][head] for peer in ranks]) for head, ranks in self.holders.items()]
        return np.concatenate([head.reshape(-1, self.dim) for head in whole], axis=1).ravel()

    def _with(self, peer: int) -> list[int]:
        return [head for head, ranks in self.holders.items() if peer in ranks]

    def _piece(self, head: int, of: int) -> Array:
        ranks = self.holders[head]
        span = share(self.own[head].size, len(ranks), ranks.index(of))
        return self.own[head][span.start : span.stop]

    def _split(self, peer: int, came: Array, of: int) -> dict[int, Array]:
        """What came from ``peer``, by head: pieces of rank ``of``."""
        heads = self._with(peer)
        sizes = [self._piece(head, of).size for head in heads]
        if came.size != sum(sizes):
            brought = f"{sum(sizes)} elements at socket {self.rank}, {came.size} at socket {peer}"
            raise InvariantError(f"{self.name}: of heads {heads} {brought}")
        return dict(zip(heads, np.split(came, np.cumsum(sizes)[:-1]), strict=True))
