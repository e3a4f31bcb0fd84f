"""Do operators on images compute and cost what they are called? Against sums written out, and by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from node.dataflow.attributes import Planes, Resize, Window
from node.dataflow.batch import Batch
from node.dataflow.form import Step
from node.dataflow.graph import Operator, Stencil
from node.dataflow.image_operators import (
    bilinear,
    concatenation,
    convolution,
    instance_norm,
    leaky_relu,
    planes,
    pooling,
    standardise,
    transposed_convolution,
)
from node.dataflow.meaning import images
from node.dataflow.meaning.compute import compute
from node.dataflow.meaning.operands import Array

RANDOM = np.random.default_rng(5)
IMAGES = 2
OF = Planes(3, 6, 10)


@dataclass
class Given:
    """Operands by hand."""

    held: Array
    batch: Batch = field(default_factory=lambda: Batch((0,) * IMAGES, (0,) * IMAGES))

    def weights(self, operator: str) -> Array:
        return self.held


def _random(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def _run(op: Operator, *inputs: Array, weights: Array | None = None) -> Array:
    """Of (images, channels, height, width) the first result, as rows."""
    flat = [array.reshape(len(array), -1) for array in inputs]
    return compute(op, flat, Given(np.zeros(0, np.float32) if weights is None else weights))[0]


def _padded(image: Array, padding: int, outside: float = 0.0) -> np.ndarray:
    return np.pad(image.astype(np.float64), [(0, 0), (padding, padding), (padding, padding)], constant_values=outside)


def _places(image: np.ndarray, over: Window) -> list[np.ndarray]:
    """(channels, size, size) of each place, line by line."""
    lines, columns = (edge - over.size + 1 for edge in image.shape[1:])
    return [
        image[:, line : line + over.size, column : column + over.size]
        for line in range(0, lines, over.stride)
        for column in range(0, columns, over.stride)
    ]


WINDOWS = [Window(OF, 3, 1, 1), Window(OF, 3, 2, 1), Window(OF, 1), Window(OF, 5, 1, 2), Window(OF, 2, 2)]


@pytest.mark.parametrize("over", WINDOWS)
@pytest.mark.parametrize("at_once", [images.AT_ONCE, 1])
def test_a_convolution_is_the_sum_over_its_window(monkeypatch: pytest.MonkeyPatch, over: Window, at_once: int) -> None:
    """All of an image at once, or a line at a time."""
    monkeypatch.setattr(images, "AT_ONCE", at_once)
    made, given, weights = over.made(4), _random(IMAGES, 3, 6, 10), _random(3 * over.size**2 + 1, 4)
    op = convolution("c", planes("x", OF), planes("y", made), over, 4)
    expected = [
        [[(part.ravel() @ weights[:-1, out]) + weights[-1, out] for part in _places(_padded(image, over.padding), over)]
         for out in range(4)]
        for image in given
    ]  # fmt: skip
    np.testing.assert_allclose(_run(op, given, weights=weights), np.array(expected).reshape(IMAGES, -1), atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_transposed_convolution_gives_each_element_a_square_of_its_own(factor: int) -> None:
    given, weights = _random(IMAGES, 3, 6, 10), _random(3 * factor**2 + 1, 4)
    op = transposed_convolution("t", planes("x", OF), planes("y", Planes(4, 6 * factor, 10 * factor)), OF, 4, factor)
    found = _run(op, given, weights=weights).reshape(IMAGES, 4, 6 * factor, 10 * factor)
    for line, column in np.ndindex(factor, factor):
        of_place = weights[:-1].reshape(factor, factor, 3, 4)[line, column]
        expected = np.einsum("ichw,co->iohw", given, of_place) + weights[-1][:, None, None]
        np.testing.assert_allclose(found[:, :, line::factor, column::factor], expected, atol=1e-5)


@pytest.mark.parametrize("over", [Window(OF, 2, 2), Window(OF, 3, 2, 1)])
def test_pooling_takes_the_greatest_or_the_mean(over: Window) -> None:
    given, made = _random(IMAGES, 3, 6, 10) - 3, over.made(3)
    for function, outside, join in (("max_pool", -np.inf, np.max), ("average_pool", 0.0, np.mean)):
        op = pooling("p", planes("x", OF), planes("y", made), over, function)
        of_each = [_places(_padded(image, over.padding, outside), over) for image in given]
        expected = np.array([[join(part, axis=(1, 2)) for part in parts] for parts in of_each]).swapaxes(1, 2)
        np.testing.assert_allclose(_run(op, given), expected.reshape(IMAGES, -1), atol=1e-6)


def test_an_instance_norm_is_over_each_plane_of_each_image() -> None:
    given, weights = _random(IMAGES, 3, 6, 10) * 5 + 100, _random(2, 3)
    gather, apply = instance_norm("n", planes("x", OF), planes("y", OF), OF, 0.25)
    statistics = _run(gather, given)
    exact = given.astype(np.float64)
    mean, variance = exact.mean(axis=(2, 3)), exact.var(axis=(2, 3))
    np.testing.assert_allclose(statistics, np.concatenate([mean, 1 / np.sqrt(variance + 0.25)], axis=1), rtol=1e-5)
    found = _run(apply, given, statistics, weights=weights).reshape(given.shape)
    normed = (exact - mean[..., None, None]) / np.sqrt(variance + 0.25)[..., None, None]
    np.testing.assert_allclose(found, normed * weights[0][:, None, None] + weights[1][:, None, None], atol=1e-4)


def test_what_is_done_to_each_element() -> None:
    given, other = _random(IMAGES, 3, 6, 10), _random(IMAGES, 2, 6, 10)
    x, y = planes("x", OF), planes("y", OF)
    np.testing.assert_array_equal(
        _run(leaky_relu("r", x, y, 0.25), given), np.where(given > 0, given, given / 4).reshape(IMAGES, -1)
    )
    weights = np.abs(_random(2, 3)) + 1
    expected = (given - weights[0][:, None, None]) / weights[1][:, None, None]
    np.testing.assert_allclose(
        _run(standardise("s", x, y, OF), given, weights=weights), expected.reshape(IMAGES, -1), rtol=1e-5
    )
    joined = concatenation("c", (x, planes("z", Planes(2, 6, 10))), planes("y", Planes(5, 6, 10)))
    np.testing.assert_array_equal(
        _run(joined, given, other), np.concatenate([given, other], axis=1).reshape(IMAGES, -1)
    )


def test_planes_of_twice_the_size_lie_between_their_neighbours() -> None:
    """A quarter of the way to the neighbour; what lies outside the centres of the edge is the edge."""
    sizes = Resize(Planes(1, 1, 3), Planes(1, 2, 6))
    op = bilinear("b", planes("x", sizes.source), planes("y", sizes.target), sizes)
    given = np.array([[0.0, 4.0, 12.0]] * IMAGES, dtype=np.float32).reshape(IMAGES, 1, 1, 3)
    np.testing.assert_allclose(_run(op, given), [[0, 1, 3, 6, 10, 12] * 2] * IMAGES)


# What they cost, of one image


def test_a_convolution_is_a_product_per_place_of_its_window() -> None:
    op = convolution("c", planes("x", OF), planes("y", Planes(4, 3, 5)), Window(OF, 3, 2, 1), 4)
    assert op.flops.at(_one()) == 15 * 4 * (2 * 27 + 1)
    assert (op.rows.at(_one()), op.columns.at(_one()), op.mode) == (15, 4, "systolic")
    assert op.matrix is not None and op.matrix.elements == 27 * 4 + 4 and op.weights == 2 * op.matrix.elements


def test_a_transposed_convolution_multiplies_no_zeros() -> None:
    op = transposed_convolution("t", planes("x", OF), planes("y", Planes(4, 12, 20)), OF, 4, 2)
    assert op.flops.at(_one()) == 240 * 4 * (2 * 3 + 1)  # of each element made: three channels in, and the bias
    assert (op.rows.at(_one()), op.columns.at(_one())) == (60, 16)
    assert op.matrix is not None and op.matrix.elements == 3 * 4 * 4 + 4
    assert op.stencil == Stencil(6)  # a tile is a line of the source at least, and needs no other


def test_an_instance_norm_takes_each_element_twice_and_seven_flops() -> None:
    pair = instance_norm("n", planes("x", OF), planes("y", OF), OF, 1e-5)
    assert sum(op.flops.at(_one()) for op in pair) == 7 * 180
    assert [op.streamed.at(_one()) * op.passes for op in pair] == [360, 360]  # bytes: what is taken, though few leave
    assert [op.weights for op in pair] == [0, 12]


def test_others_by_hand() -> None:
    x, half = planes("x", OF), planes("y", Planes(3, 3, 5))
    pooled = pooling("p", x, half, Window(OF, 2, 2), "max_pool")
    assert (pooled.flops.at(_one()), pooled.passes, pooled.stencil) == (45 * 3, 4, Stencil(3))
    assert pooling("p", x, half, Window(OF, 2, 2), "average_pool").flops.at(_one()) == 45 * 4
    assert leaky_relu("r", x, planes("y", OF), 0.01).flops.at(_one()) == 360
    even = standardise("s", x, planes("y", OF), OF)
    assert (even.flops.at(_one()), even.weights) == (360, 12)
    drawn = bilinear("b", half, x, Resize(Planes(3, 3, 5), OF))
    assert (drawn.flops.at(_one()), drawn.passes, drawn.stencil) == (180 * 7, 4, Stencil(3, 3 * 5 * 2, ahead=True))


def _one() -> Step:
    return Step(0, 0, 0, 1)


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        (Window(OF, 3, 1, 1), Stencil(6, 3 * 10 * 2, ahead=True)),
        (Window(OF, 3, 2, 1), Stencil(3, 3 * 10 * 2, ahead=False)),  # two lines a tile, and the one before
        (Window(OF, 5, 1, 2), Stencil(3, 2 * 3 * 10 * 2, ahead=True)),  # reads two ahead: no tile is one line
        (Window(OF, 1), Stencil(6, 0, ahead=False)),
        (Window(OF, 2, 2), Stencil(3, 0, ahead=False)),
    ],
)
def test_what_a_window_reads_beside_its_tile(over: Window, expected: Stencil) -> None:
    assert convolution("c", planes("x", OF), planes("y", over.made(4)), over, 4).stencil == expected
