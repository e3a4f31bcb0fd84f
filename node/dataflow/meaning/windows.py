"""Patches of images, windows of patches, attention within windows: a row per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from node.dataflow.attributes import Grid, GridHeads, Patches
from node.dataflow.graph import Operator
from node.dataflow.meaning.operands import Array, Operands


def to_patches(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """(images, channels x lines x columns) -> (images, patches x channels x patch x patch), patches line by line."""
    assert isinstance(op.attributes, Patches)
    side, patch = op.attributes.side, op.attributes.patch
    cut = inputs[0].reshape(len(inputs[0]), -1, side, patch, side, patch)
    return (cut.transpose(0, 2, 4, 1, 3, 5).reshape(len(cut), -1),)


def image_positions(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The table is added to each image's rows."""
    return (inputs[0] + operands.weights(op.name).ravel(),)


def to_windows(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Rows line by line to rows window by window, zeros where a window goes beyond the edge."""
    assert isinstance(op.attributes, Grid)
    of = op.attributes
    lines = inputs[0].reshape(len(inputs[0]), of.side, of.side, -1)
    beyond = of.across * of.window - of.side
    padded = np.pad(lines, ((0, 0), (0, beyond), (0, beyond), (0, 0)))
    windows = padded.reshape(len(lines), of.across, of.window, of.across, of.window, -1).swapaxes(2, 3)
    return (windows.reshape(len(lines), -1),)


def from_windows(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Back to rows line by line, without those beyond the edge."""
    assert isinstance(op.attributes, Grid)
    of = op.attributes
    windows = inputs[0].reshape(len(inputs[0]), of.across, of.across, of.window, of.window, -1)
    edge = of.across * of.window
    lines = windows.swapaxes(2, 3).reshape(len(windows), edge, edge, -1)
    return (lines[:, : of.side, : of.side].reshape(len(lines), -1),)


def relative_positions(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """(window, head, line, column, lines and columns of the window): products of a query with rows by distance."""
    of = _of(op)
    edge, table = of.grid.window, operands.weights(op.name)
    distance = np.arange(edge)[:, None] - np.arange(edge) + edge - 1
    of_lines, of_columns = table[: 2 * edge - 1][distance], table[2 * edge - 1 :][distance]
    query = _split(inputs[0], of).reshape(-1, edge, edge, of.dim)
    by_line = query @ of_lines.swapaxes(1, 2)
    by_column = (query.swapaxes(1, 2) @ of_columns.swapaxes(1, 2)).swapaxes(1, 2)
    return (np.concatenate([by_line, by_column], axis=3).reshape(len(inputs[0]), -1),)


def scores(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Q K^T / sqrt(elements of a head): (window, head, query, key)."""
    of = _of(op)
    query, key = (_split(array, of) for array in inputs)
    made = query @ key.swapaxes(3, 4) / np.float32(np.sqrt(of.dim))
    return (made.reshape(len(made), -1),)


def relative_add(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """To the score of a key what its query has for the key's line, and for its column."""
    edge = _of(op).grid.window
    made, relative = inputs[0].reshape(-1, edge, edge), inputs[1].reshape(-1, 2 * edge)
    return ((made + relative[:, :edge, None] + relative[:, None, edge:]).reshape(inputs[0].shape),)


def softmax(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Over the keys of a window, zeros that fill it among them."""
    made = inputs[0].reshape(-1, _of(op).grid.window ** 2)
    made = np.exp(made - made.max(axis=1, keepdims=True))
    return ((made / made.sum(axis=1, keepdims=True)).reshape(inputs[0].shape),)


def values(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """P V within each window."""
    of = _of(op)
    held = _split(inputs[1], of)
    made = inputs[0].reshape(*held.shape[:4], -1) @ held
    return (made.swapaxes(2, 3).reshape(len(made), -1),)


def _of(op: Operator) -> GridHeads:
    assert isinstance(op.attributes, GridHeads)
    return op.attributes


def _split(array: Array, of: GridHeads) -> Array:
    """(images, rows x heads x dim) -> (images, windows, heads, rows of a window, dim)."""
    return array.reshape(len(array), of.grid.windows, -1, of.heads, of.dim).swapaxes(2, 3)
