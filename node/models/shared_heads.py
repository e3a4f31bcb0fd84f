"""KV heads that several sockets hold: the gradients of their weights are sums over those sockets.

Each of them makes the head's keys and values alike, but their gradients from its own query heads alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from node.dataflow.attributes import Shared
from node.dataflow.graph import Operator
from node.dataflow.operators import collective
from node.models.shape import Shape
from node.models.shard import kv_heads_of

SHARED = ("k_proj_weight_gradient", "v_proj_weight_gradient")


def sum_over_sharers(operators: Sequence[Operator], shape: Shape, degree: int, rank: int) -> tuple[Operator, ...]:
    """The backward of a layer, with an all-reduce of what is shared of the gradients of key and value weights.

    A socket at the edge of an uneven range of heads shares one with either neighbour: these all-reduces run at once
    over different links, and are one operator here, for as many members as share a head.
    """
    shared, members = sharing(shape, degree, rank)
    if not shared:
        return tuple(operators)
    heads = tuple(sorted(kv_heads_of(shape, degree, rank)))
    of_rank = [kv_heads_of(shape, degree, other) for other in range(degree)]
    holders = tuple(tuple(other for other in range(degree) if head in of_rank[other]) for head in heads)
    held = Shared(heads, shape.head_dim, holders)
    return tuple(made for op in operators for made in _summed(op, held, shared, members))


def sharing(shape: Shape, degree: int, rank: int) -> tuple[int, int]:
    """How many KV heads of ``rank`` other sockets hold too, and the most sockets that hold one of them."""
    held = [kv_heads_of(shape, degree, other) for other in range(degree)]
    holders = [sum(head in of_other for of_other in held) for head in held[rank]]
    return sum(count > 1 for count in holders), max(holders, default=1)


def _summed(op: Operator, held: Shared, shared: int, members: int) -> Iterator[Operator]:
    """An operator, and the all-reduce of what it makes of the ``shared`` heads among those held."""
    if op.name not in SHARED:
        yield op
        return
    (gradient,) = op.outputs
    own = replace(gradient, name=f"{gradient.name}_partial")
    yield replace(op, outputs=(own,))
    reduced = collective(f"{gradient.name}_all_reduce", "all_reduce", own, gradient)
    part = shared / len(held.heads)
    yield replace(
        reduced,
        flops=reduced.flops * part,
        message=reduced.message * part,
        members=members,
        function="shared_heads",
        attributes=held,
    )
