"""Collectives as one rank does them, by what it sends and takes: generators that yield posts and take what came.

As timing mode has them (``node.collectives``), of the kind that the compiled operator says, so that both modes do the
same. A direct all-reduce brings everything to everybody, and each adds it up in the order of ranks. The other kind is a
reduce-scatter and an all-gather: rank r makes the r-th share of the result from what all bring, in the order of ranks,
and gives it to all. So every rank gets the same bits, the same as ``exchange`` makes of whole arrays.

Timing mode charges BF16, functional mode sends float32: elements sent are the same. Of an all-reduce of E elements in
two hops, c of them its share, a member of n sends E + (n - 2) c; timing charges each 2 E (n - 1) / n, so they are less
than one element per peer apart (of ``log_sum_exp``, shared out by rows: one row), and all members together send exactly
that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np

from cluster.peer_links.frames import Label
from cluster.peer_links.links import Post, Received
from cluster.peer_links.sharing import Sharing
from node.dataflow.graph import Operator, share
from node.dataflow.meaning.exchange import exchange
from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

Steps = Generator[Post, Received, Array]


def collective(op: Operator, array: Array, rank: int, members: int) -> Steps:
    """What ``rank`` of ``members`` gets of what all bring to ``op``; it brings ``array``."""
    if members == 1:
        return exchange([(op, array)])[0]
    return (yield from COLLECTIVES[op.meaning](op, array, rank, members))


def _reduced(op: Operator, array: Array, rank: int, members: int) -> Steps:
    if op.direct:
        return (yield from _direct(op, array, rank, members))
    label, others = _label(op), _others(rank, members)
    rows = array.reshape(-1) if op.meaning == "all_reduce" else array
    spans = [share(len(rows), members, part) for part in range(members)]
    shares = [rows[span.start : span.stop] for span in spans]
    came = yield Post(label, {peer: shares[peer] for peer in others}, others)
    own = exchange([(op, part) for part in _brought(op, came, rank, shares[rank], shares[rank].shape)])[0]
    came = yield Post(label, dict.fromkeys(others, own), others)
    return np.concatenate(_brought(op, came, rank, own)).reshape(array.shape)


def _direct(op: Operator, array: Array, rank: int, members: int) -> Steps:
    others = _others(rank, members)
    came = yield Post(_label(op), dict.fromkeys(others, array), others)
    return exchange([(op, part) for part in _brought(op, came, rank, array, array.shape)])[0]


def _gathered(op: Operator, array: Array, rank: int, members: int) -> Steps:
    others = _others(rank, members)
    came = yield Post(_label(op), dict.fromkeys(others, array), others)
    brought = _brought(op, came, rank, array)
    for peer, part in enumerate(brought):
        if part.ndim != 2 or len(part) != len(array):
            raise _uneven(op, rank, array.shape, peer, part.shape)
    return exchange([(op, part) for part in brought])[0]


def _shared(op: Operator, array: Array, rank: int, _members: int) -> Steps:
    """Of each KV head an all-reduce between those who hold it; all heads that two sockets share go in one frame.

    Timing mode charges every shared head of a socket as the one that most hold: the same where all are held by as many.
    """
    sharing, label = Sharing.of(op, array, rank), _label(op)
    came = yield Post(label, sharing.to_sum(), sharing.others)
    sums = sharing.summed(came)
    came = yield Post(label, sharing.to_gather(sums), sharing.others)
    return sharing.gathered(came, sums)


def _label(op: Operator) -> Label:
    """What peers must be at, too: sockets that chose different kinds of one all-reduce are not."""
    return op.name, f"direct {op.meaning}" if op.direct else op.meaning


def _others(rank: int, members: int) -> list[int]:
    return [peer for peer in range(members) if peer != rank]


def _brought(
    op: Operator, came: Received, rank: int, own: Array, shape: tuple[int, ...] | None = None
) -> Sequence[Array]:
    """In the order of ranks; all of one ``shape``, if it is given."""
    for peer, part in came.items():
        if shape is not None and part.shape != shape:
            raise _uneven(op, rank, shape, peer, part.shape)
    return [own if part == rank else came[part] for part in range(len(came) + 1)]


def _uneven(op: Operator, rank: int, own: tuple[int, ...], peer: int, other: tuple[int, ...]) -> InvariantError:
    return InvariantError(f"{op.name}: of shape {own} at socket {rank}, {other} at socket {peer}")


COLLECTIVES: dict[str, Callable[[Operator, Array, int, int], Steps]] = {
    "all_reduce": _reduced,
    "all_gather": _gathered,
    "log_sum_exp": _reduced,
    "shared_heads": _shared,
}
