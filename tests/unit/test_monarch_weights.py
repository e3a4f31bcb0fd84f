"""Does the Monarch graph that is timed compute a Fourier transform?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from node.models.monarch import Transform, monarch
from node.models.monarch_weights import Array, monarch_weights, natural, striped, unstriped
from tests.functional import Batch, group

FACTORS = [(5,), (4, 8), (6, 4), (4, 3, 5), (2, 3, 4, 5)]
SIGNALS = 3


def _run(transform: Transform, signals: Array, taps: npt.NDArray[np.float64] | None = None) -> Array:
    """What the graph makes of signals, in the order in which it leaves."""
    weights = monarch_weights(transform, taps)
    graph = monarch(transform)
    socket = group(lambda _: graph, lambda _rank, _symbol, _layer, op: weights[op.name], 1)
    socket.contents[0].memory["transform.signal"] = striped(transform, signals)
    socket.run(Batch((0,) * len(signals), (0,) * len(signals)))
    return socket.made(f"transform.{graph.blocks[0].operators[-1].outputs[0].name}")


@pytest.mark.parametrize("factors", FACTORS)
def test_a_transform_is_numpys(factors: tuple[int, ...]) -> None:
    transform = Transform("t", "transform", factors)
    signals = np.random.default_rng(1).normal(size=(SIGNALS, transform.points)).astype(np.float32)
    found = natural(transform, _run(transform, signals))
    np.testing.assert_allclose(found, np.fft.fft(signals).real, atol=2e-5)


@pytest.mark.parametrize("factors", FACTORS)
def test_a_convolution_is_circular(factors: tuple[int, ...]) -> None:
    """Against the sum itself, not another transform."""
    transform, random = Transform("c", "convolution", factors), np.random.default_rng(2)
    signals = random.normal(size=(SIGNALS, transform.points)).astype(np.float32)
    taps = random.normal(size=transform.points)
    found = unstriped(transform, _run(transform, signals, taps))
    points = np.arange(transform.points)
    expected = signals @ taps[(points[None] - points[:, None]) % transform.points]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_convolution_needs_a_tap_per_point() -> None:
    with pytest.raises(ValueError, match="must be 32 taps"):
        monarch_weights(Transform("c", "convolution", (4, 8)), np.ones(31))


@pytest.mark.parametrize("factors", FACTORS)
def test_striped_and_back(factors: tuple[int, ...]) -> None:
    transform = Transform("t", "transform", factors)
    signals = np.arange(2 * transform.points, dtype=np.float32).reshape(2, -1)
    assert (unstriped(transform, striped(transform, signals)) == signals).all()
