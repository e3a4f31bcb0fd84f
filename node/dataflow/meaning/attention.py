"""Attention over what each query sees: a row per (query, key) pair, a column per head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np

from node.dataflow.attributes import Heads
from node.dataflow.batch import Batch
from node.dataflow.graph import Operator
from node.dataflow.meaning.operands import Array, Operands


def append(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """New keys and values go to the cache."""
    operands.append(*inputs)
    return ()


def scores(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Q K^T / sqrt(elements of a head) of the pairs; keys from the cache, or those that enter."""
    heads, batch = _heads(op), operands.batch
    made = []
    for sequence, queries in enumerate(_split(inputs[0], batch, heads.dim)):
        keys = _stationary(inputs, operands.keys, sequence, operands, heads)
        dense = queries.transpose(1, 0, 2) @ keys.transpose(1, 2, 0)
        pairs = dense.reshape(len(dense), -1) if batch.whole[sequence] else dense[:, batch.masks[sequence]]
        made.append(pairs.T / np.float32(sqrt(heads.dim)))
    return (np.concatenate(made),)


def softmax(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Over the keys that each query sees; ALiBi lowers scores by slope x distance first."""
    heads, batch, made = _heads(op), operands.batch, inputs[0]
    if heads.slopes:
        slopes = np.array(heads.slopes, dtype=np.float32)
        made = made - slopes * batch.distances[:, None].astype(np.float32)
    made = np.exp(made - _spread(np.maximum, made, batch))
    return (made / _spread(np.add, made, batch),)


def softmax_gradient(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """dS = P (dP - sum(dP P)), from P as kept."""
    kept, gradient = inputs
    return (kept * (gradient - _spread(np.add, kept * gradient, operands.batch)),)


def values(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """O = P V; values from the cache, or those that enter."""
    heads = _heads(op)
    made = []
    for sequence, dense in enumerate(_dense(inputs[0], operands.batch)):
        held = _stationary(inputs, operands.values, sequence, operands, heads)
        made.append((dense @ held.transpose(1, 0, 2)).transpose(1, 0, 2).reshape(dense.shape[1], -1))
    return (np.concatenate(made),)


def scores_left(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """dQ = dS K / sqrt(elements of a head): what ``values`` does, with K for V."""
    (made,) = values(op, inputs, operands)
    return (made / np.float32(np.sqrt(_heads(op).dim)),)


def scores_right(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """dK = dS^T Q / sqrt(elements of a head), summed over the query heads of each KV head."""
    (made,) = values_right(op, inputs[::-1], operands)
    return (made / np.float32(np.sqrt(_heads(op).dim)),)


def values_left(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """dP = dO V^T: what ``scores`` does, without its scale."""
    (made,) = scores(op, inputs, operands)
    return (made * np.float32(np.sqrt(_heads(op).dim)),)


def values_right(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """dV = P^T dO, summed over the query heads of each KV head."""
    heads, batch = _heads(op), operands.batch
    made = []
    for dense, of_query in zip(_dense(inputs[0], batch), _split(inputs[1], batch, heads.dim), strict=True):
        of_heads = dense.transpose(0, 2, 1) @ of_query.transpose(1, 0, 2)
        summed = np.zeros((max(heads.kv) + 1, *of_heads.shape[1:]), dtype=np.float32)
        np.add.at(summed, np.array(heads.kv), of_heads)
        made.append(summed.transpose(1, 0, 2).reshape(of_heads.shape[1], -1))
    return (np.concatenate(made),)


def image_scores(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Q K^T / sqrt(elements of a head) over all positions of each image: (images, heads x positions x positions)."""
    heads = _heads(op)
    query, key = (_of_image(array, heads) for array in inputs)
    made = query @ key.swapaxes(2, 3) / np.float32(np.sqrt(heads.dim))
    return (made.reshape(len(made), -1),)


def image_softmax(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Over all positions of an image."""
    made = _square(inputs[0], _heads(op))
    made = np.exp(made - made.max(axis=3, keepdims=True))
    return ((made / made.sum(axis=3, keepdims=True)).reshape(inputs[0].shape),)


def image_values(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """P V over all positions of each image."""
    heads = _heads(op)
    made = _square(inputs[0], heads) @ _of_image(inputs[1], heads)
    return (made.swapaxes(1, 2).reshape(len(made), -1),)


def _heads(op: Operator) -> Heads:
    assert isinstance(op.attributes, Heads)
    return op.attributes


def _split(array: Array, batch: Batch, dim: int) -> Iterator[Array]:
    """Of each sequence (new, heads, dim)."""
    for span in batch.of_tokens:
        yield array[span].reshape(span.stop - span.start, -1, dim)


def _stationary(inputs: Sequence[Array], cached: object, sequence: int, operands: Operands, heads: Heads) -> Array:
    """(context, query heads, dim): the keys or values that each query head reads."""
    if len(inputs) > 1:
        held = inputs[1][operands.batch.of_tokens[sequence]]
    else:
        assert callable(cached)
        held = cached(sequence)
    split = held.reshape(len(held), -1, heads.dim)
    return split if heads.kv == tuple(range(split.shape[1])) else np.asarray(split[:, list(heads.kv)])


def _dense(array: Array, batch: Batch) -> Iterator[Array]:
    """Of each sequence (heads, new, context), zero where the query does not see the key."""
    for mask, span, whole in zip(batch.masks, batch.of_pairs, batch.whole, strict=True):
        if whole:
            yield np.ascontiguousarray(array[span].T).reshape(array.shape[1], *mask.shape)
            continue
        dense = np.zeros((array.shape[1], *mask.shape), dtype=np.float32)
        dense[:, mask] = array[span].T
        yield dense


def _spread(over: np.ufunc, array: Array, batch: Batch) -> Array:
    """Of each pair what ``over`` makes of all pairs of its query."""
    return np.asarray(np.repeat(over.reduceat(array, batch.first_pairs, axis=0), batch.seen, axis=0))


def _of_image(array: Array, heads: Heads) -> Array:
    """(images, positions x heads x dim) -> (images, heads, positions, dim)."""
    return array.reshape(len(array), -1, len(heads.kv), heads.dim).swapaxes(1, 2)


def _square(array: Array, heads: Heads) -> Array:
    """(images, heads, positions, positions)."""
    count = len(heads.kv)
    positions = round((array.shape[1] // count) ** 0.5)
    return array.reshape(len(array), count, positions, positions)
