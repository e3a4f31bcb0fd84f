"""A model's weights by operator, and the shard of each that one socket of a tensor-parallel group holds.

Weights of an operator are (rows, columns) of its matrix, with a bias as one row more, as the graph of one socket says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from node.dataflow.graph import Operator, share
from node.models.shape import Shape
from node.models.shard import kv_heads_of

Array = npt.NDArray[np.float32]
Split = Callable[[Shape, int, int], range]


def _heads(shape: Shape, degree: int, rank: int) -> range:
    held = share(shape.heads, degree, rank)
    return range(held.start * shape.head_dim, held.stop * shape.head_dim)


def _kv_heads(shape: Shape, degree: int, rank: int) -> range:
    held = sorted(kv_heads_of(shape, degree, rank))
    return range(held[0] * shape.head_dim, (held[-1] + 1) * shape.head_dim) if held else range(0)


def _ffn(shape: Shape, degree: int, rank: int) -> range:
    return share(shape.ffn, degree, rank)


def _vocabulary(shape: Shape, degree: int, rank: int) -> range:
    return share(shape.vocabulary, degree, rank)


def _vision_heads(shape: Shape, degree: int, rank: int) -> range:
    assert shape.vision is not None
    held, dim = share(shape.vision.heads, degree, rank), shape.vision.head_dim
    return range(held.start * dim, held.stop * dim)


def _vision_ffn(shape: Shape, degree: int, rank: int) -> range:
    assert shape.vision is not None
    return share(shape.vision.ffn, degree, rank)


# operator -> how its matrix is split; every socket holds the others whole
COLUMNS: dict[str, Split] = {
    "q_proj": _heads,
    "k_proj": _kv_heads,
    "v_proj": _kv_heads,
    "up_proj": _ffn,
    "gate_proj": _ffn,
    "lm_head": _vocabulary,
    "vision_q_proj": _vision_heads,
    "vision_k_proj": _vision_heads,
    "vision_v_proj": _vision_heads,
    "vision_up_proj": _vision_ffn,
}
ROWS: dict[str, Split] = {
    "embedding": _vocabulary,
    "o_proj": _heads,
    "down_proj": _ffn,
    "vision_o_proj": _vision_heads,
    "vision_down_proj": _vision_ffn,
}


def shard(op: Operator, whole: Array, shape: Shape, degree: int, rank: int) -> Array:
    """What ``rank`` holds of the ``whole`` weights of ``op``; where rows are split, the first rank has the bias.

    The sum over the sockets has it once then; the others hold zeros in its place.
    """
    if op.name in COLUMNS:
        return columns_of(whole, COLUMNS[op.name](shape, degree, rank))
    return rows_of(op, whole, ROWS[op.name](shape, degree, rank), rank) if op.name in ROWS else whole


def columns_of(whole: Array, held: range) -> Array:
    """The columns that a rank holds, each with its bias."""
    return whole[:, held.start : held.stop]


def rows_of(op: Operator, whole: Array, held: range, rank: int) -> Array:
    """The rows that a rank holds; the first has the bias."""
    rows = whole[held.start : held.stop]
    if op.matrix is None or not op.matrix.bias:
        return rows
    bias = whole[-1:] if rank == 0 else np.zeros_like(whole[-1:])
    return np.concatenate([rows, bias])
