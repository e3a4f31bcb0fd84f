"""What collectives make of the arrays that the sockets of a group bring, by rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from node.dataflow.attributes import Shared
from node.dataflow.graph import Operator
from node.dataflow.meaning.learning import log_sum_exp
from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

Brought = Sequence[tuple[Operator, Array]]


def exchange(brought: Brought) -> list[Array]:
    """What each rank gets of what each brought; raises ``InvariantError`` where they are at different collectives."""
    names = {(op.name, op.meaning) for op, _ in brought}
    if len(names) != 1:
        raise InvariantError(f"sockets of a group are at different collectives: {sorted(names)}")
    return EXCHANGES[brought[0][0].meaning](brought)


def _all_reduce(brought: Brought) -> list[Array]:
    """The sum, in the order of ranks."""
    made = brought[0][1]
    for _, array in brought[1:]:
        made = made + array
    return [made] * len(brought)


def _all_gather(brought: Brought) -> list[Array]:
    """All columns, in the order of ranks."""
    return [np.concatenate([array for _, array in brought], axis=1)] * len(brought)


def _log_sum_exp(brought: Brought) -> list[Array]:
    return [log_sum_exp([array for _, array in brought])] * len(brought)


def _shared_heads(brought: Brought) -> list[Array]:
    """Gradients of key or value weights: of each KV head the sum over those who hold it."""
    parts = [by_head(op, array) for op, array in brought]
    sums: dict[int, Array] = {}
    for of_rank in parts:
        for head, part in of_rank.items():
            sums[head] = sums[head] + part if head in sums else part
    return [np.concatenate([sums[head] for head in of_rank], axis=1).ravel() for of_rank in parts]


def by_head(op: Operator, array: Array) -> dict[int, Array]:
    """What a socket brings to ``shared_heads``, by KV head: (rows, elements of a head)."""
    assert isinstance(op.attributes, Shared)
    held = op.attributes
    columns = np.split(array.reshape(-1, len(held.heads) * held.dim), len(held.heads), axis=1)
    return dict(zip(held.heads, columns, strict=True))


EXCHANGES: dict[str, Callable[[Brought], list[Array]]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "log_sum_exp": _log_sum_exp,
    "shared_heads": _shared_heads,
}
