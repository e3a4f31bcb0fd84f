"""All ranks of a group in one process, from collective to collective: what the links are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from node.dataflow.execute import Exchange
from node.dataflow.graph import Operator
from node.dataflow.meaning.exchange import exchange
from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

T = TypeVar("T")


def lockstep(runs: Sequence[Exchange[T]]) -> list[T]:
    """The runs of all ranks of a group in one process, from collective to collective; what each returns."""
    ended: dict[int, T] = {}
    brought = [_advance(one, None, rank, ended) for rank, one in enumerate(runs)]
    while len(ended) < len(runs):
        if ended:
            raise InvariantError(f"{len(ended)} of {len(runs)} sockets ended before the others")
        made = exchange([item for item in brought if item is not None])
        brought = [_advance(one, made[rank], rank, ended) for rank, one in enumerate(runs)]
    return [ended[rank] for rank in range(len(runs))]


def _advance(one: Exchange[T], made: Array | None, rank: int, ended: dict[int, T]) -> tuple[Operator, Array] | None:
    """To the next collective, or to its end."""
    try:
        return next(one) if made is None else one.send(made)
    except StopIteration as stop:
        ended[rank] = stop.value
        return None
