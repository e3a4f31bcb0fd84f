"""What operators on images compute: a row per image, its planes one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from node.dataflow.attributes import Norm, Planes, Resize, Slope, Window
from node.dataflow.graph import Operator
from node.dataflow.meaning.operands import Array, Operands

AT_ONCE = 2**22  # elements of windows that are laid out side by side


def convolution(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Y = X W (+ b) with a row of X for each place of the window, its elements by channel, line and column."""
    assert isinstance(op.attributes, Window) and op.matrix is not None
    weights, over = operands.weights(op.name), op.attributes
    inner, columns = op.matrix.rows, op.matrix.columns
    made = over.made(columns)
    found = np.empty((len(inputs[0]), columns, made.height, made.width), dtype=np.float32)
    matrix = np.ascontiguousarray(weights[:inner].T)
    for image, result in zip(inputs[0], found, strict=True):
        windows = _windows(image, over, 0.0)
        for lines in _parts(made.height, inner * made.width):
            side_by_side = windows[:, lines].transpose(0, 3, 4, 1, 2).reshape(inner, -1)
            result[:, lines] = (matrix @ side_by_side).reshape(columns, -1, made.width)
    if op.matrix.bias:
        found += weights[inner, :, None, None]
    return (found.reshape(len(found), -1),)


def _windows(image: Array, over: Window, outside: float) -> Array:
    """(channels, lines, columns, size, size): a view of the window at all its places."""
    edge, of = over.padding, over.of
    padded = np.full((of.channels, of.height + 2 * edge, of.width + 2 * edge), outside, dtype=np.float32)
    padded[:, edge : edge + of.height, edge : edge + of.width] = image.reshape(of.channels, of.height, of.width)
    view = np.lib.stride_tricks.sliding_window_view(padded, (over.size, over.size), axis=(1, 2))
    return view[:, :: over.stride, :: over.stride]


def _parts(lines: int, elements: int) -> Iterator[slice]:
    """Lines of so many ``elements`` in parts that are not too many."""
    step = max(1, AT_ONCE // elements)
    return (slice(first, first + step) for first in range(0, lines, step))


def transposed_convolution(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Each element of the source times the weights of each place that it becomes."""
    assert isinstance(op.attributes, Planes)
    of, weights = op.attributes, operands.weights(op.name)
    columns, images = weights.shape[1], len(inputs[0])
    places = weights[:-1].reshape(-1, of.channels, columns)
    factor = round(len(places) ** 0.5)
    source = inputs[0].reshape(images, of.channels, of.pixels)
    found = np.empty((images, columns, of.height, factor, of.width, factor), dtype=np.float32)
    for place, matrix in enumerate(places):
        line, column = divmod(place, factor)
        found[:, :, :, line, :, column] = (matrix.T @ source).reshape(images, columns, of.height, of.width)
    found += weights[-1, :, None, None, None, None]
    return (found.reshape(images, -1),)


def max_pool(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The greatest element of each window; what lies outside is less than any."""
    assert isinstance(op.attributes, Window)
    made = [_windows(image, op.attributes, -np.inf).max(axis=(3, 4)).ravel() for image in inputs[0]]
    return (np.stack(made),)


def average_pool(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The mean of each window, zeros outside counted."""
    assert isinstance(op.attributes, Window)
    made = [_windows(image, op.attributes, 0.0).mean(axis=(3, 4)).ravel() for image in inputs[0]]
    return (np.stack(made),)


def plane_statistics(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Of each image the means of all planes, then what they are scaled with, 1 / sqrt(variance + epsilon)."""
    assert isinstance(op.attributes, Norm)
    of = inputs[0].reshape(len(inputs[0]), -1, op.attributes.width)
    mean = of.mean(axis=2, keepdims=True)
    variance = np.square(of - mean).mean(axis=2)
    scale = np.reciprocal(np.sqrt(variance + np.float32(op.attributes.epsilon)))
    return (np.concatenate([mean[..., 0], scale], axis=1),)


def normalise_planes(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """(x - mean) x scale x weight + bias, plane by plane."""
    assert isinstance(op.attributes, Norm)
    (of, statistics), weights = inputs, operands.weights(op.name)
    mean, scale = statistics.reshape(len(of), 2, -1, 1).swapaxes(0, 1)
    made = of.reshape(*mean.shape[:2], -1) - mean
    made *= scale * weights[0][:, None]
    made += weights[1][:, None]
    return (made.reshape(of.shape),)


def standardise(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """(x - mean) / deviation, plane by plane."""
    mean, deviation = operands.weights(op.name)[..., None]
    made = (inputs[0].reshape(len(inputs[0]), len(mean), -1) - mean) / deviation
    return (made.reshape(inputs[0].shape),)


def leaky_relu(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """What lies below zero, times the slope."""
    assert isinstance(op.attributes, Slope)
    return (np.where(inputs[0] < 0, inputs[0] * np.float32(op.attributes.below), inputs[0]),)


def concatenation(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The channels of the first, then those of the next."""
    return (np.concatenate(inputs, axis=1),)


def bilinear(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Between the four nearest elements, the centres of the corners' elements half an element inside the edge."""
    assert isinstance(op.attributes, Resize)
    source, target = op.attributes.source, op.attributes.target
    down, across = _between(source.height, target.height), _between(source.width, target.width)
    of = inputs[0].reshape(len(inputs[0]), source.channels, source.height, source.width)
    return (np.asarray(down @ of @ across.T, dtype=np.float32).reshape(len(of), -1),)


@lru_cache(maxsize=16)
def _between(source: int, target: int) -> Array:
    """(target, source): of each element of a line of another size, how much of each element it is."""
    places = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    low = np.minimum(places.astype(np.int64), source - 1)
    made = np.zeros((target, source), dtype=np.float32)
    made[np.arange(target), low] = 1 - (places - low)
    made[np.arange(target), np.minimum(low + 1, source - 1)] += places - low
    return made
