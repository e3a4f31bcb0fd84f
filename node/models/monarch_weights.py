"""The constants of a Monarch FFT: DFT matrices, twiddle factors, a filter's spectrum, in the order that GEMMs leave.

With factors n1 .. nm, point j = (j1, .., jm) and frequency k = (k1, .., km), where j counts jm fastest and k counts k1
fastest, exp(-2 pi i j k / N) is the product over factors i of exp(-2 pi i ji ki / ni) (the GEMMs) and of
exp(-2 pi i ki r / (ni ni+1 .. nm)), r = (ji+1, .., jm) (the twiddles). GEMMs work on the fastest axis; transposes turn
the axes round: a signal enters in the order (2, .., m, 1) and its spectrum leaves in the order (1, .., m). An inverse
goes the same way back.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from node.models.monarch import Transform

Array = npt.NDArray[np.float32]


def monarch_weights(transform: Transform, filter_taps: npt.NDArray[np.float64] | None = None) -> dict[str, Array]:
    """By operator its weights, complex as (.., 2); a convolution's ``filter_taps`` are (points,) real."""
    factors, found = transform.factors, {}
    for at, factor in enumerate(factors):
        found[f"gemm{at}"] = _turns(np.outer(np.arange(factor), np.arange(factor)) / factor)
        if at + 1 < len(factors):
            found[f"twiddle{at}"] = _turns(_twiddles(factors, at))
    if transform.kind == "convolution":
        if filter_taps is None or filter_taps.shape != (transform.points,):
            raise ValueError(f"filter_taps: must be {transform.points} taps")
        found["filter"] = np.fft.fft(filter_taps).reshape(factors[::-1]).transpose().ravel()
        for at, factor in enumerate(factors[::-1]):
            found[f"inverse_gemm{at}"] = found[f"gemm{len(factors) - 1 - at}"].conj() / factor
            if at + 1 < len(factors):
                found[f"inverse_twiddle{at}"] = _inverse_twiddles(factors, at)
    return {name: np.stack([made.real, made.imag], axis=-1).astype(np.float32) for name, made in found.items()}


def striped(transform: Transform, signals: Array) -> Array:
    """(signals, points) in the order in which they enter, and in which those of a convolution leave."""
    matrix = signals.reshape(len(signals), transform.factors[0], -1)
    return matrix.swapaxes(1, 2).reshape(signals.shape)


def unstriped(transform: Transform, signals: Array) -> Array:
    """``striped`` undone."""
    matrix = signals.reshape(len(signals), -1, transform.factors[0])
    return matrix.swapaxes(1, 2).reshape(signals.shape)


def natural(transform: Transform, spectra: Array) -> Array:
    """(signals, points) of the order in which spectra leave, by frequency."""
    cube = spectra.reshape(len(spectra), *transform.factors)
    return cube.transpose(0, *range(len(transform.factors), 0, -1)).reshape(spectra.shape)


def _twiddles(factors: tuple[int, ...], at: int) -> npt.NDArray[np.float64]:
    """Turns after the GEMM of factor ``at``, axes in the order (at + 1, .., m, 1, .., at)."""
    rest, before = math.prod(factors[at + 1 :]), math.prod(factors[:at])
    turns = np.outer(np.arange(rest), np.arange(factors[at])) / (rest * factors[at])
    return np.repeat(turns[:, None], before, axis=1).ravel()


def _inverse_twiddles(factors: tuple[int, ...], at: int) -> npt.NDArray[np.complex128]:
    """After the inverse GEMM of the factor ``at`` from the last: the twiddles of the one before, in today's order.

    The forward order of factor i - 1 is (i, .., m, 1, .., i - 1); today's, (i + 1, .., m, 1, .., i - 1, i).
    """
    i = len(factors) - 1 - at
    forward = _turns(_twiddles(factors, i - 1)).conj()
    return forward.reshape(factors[i], -1).T.ravel()


def _turns(turns: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    """exp(-2 pi i turns)."""
    return np.asarray(np.exp(-2j * np.pi * (turns % 1.0)))
