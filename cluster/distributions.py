"""Lengths and arrivals drawn at random, read from names such as ``lognormal(mean=1155, sigma=1.1)``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.traces import LONGEST_SPAN_PS, MOST_TOKENS, Int64s
from node.errors import InputError
from node.units import PS_PER_S

_CALL = re.compile(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class _Number:
    """One parameter: inclusive bounds, whether it must be whole, its value where it may be left out."""

    low: float
    high: float
    whole: bool = False
    default: float | None = None


_TOKENS = _Number(1, MOST_TOKENS, whole=True)
_LENGTHS: Mapping[str, Mapping[str, _Number]] = {
    "lognormal": {
        "mean": _Number(1, MOST_TOKENS),
        "sigma": _Number(1e-6, 10),
        "max": _Number(1, MOST_TOKENS, whole=True, default=MOST_TOKENS),
    },
    "uniform": {"low": _TOKENS, "high": _TOKENS},
}
_ARRIVALS: Mapping[str, Mapping[str, _Number]] = {
    "poisson": {},
    "gamma": {"cv": _Number(1e-3, 100)},
    "fixed": {},
    "at_once": {},
}


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths in tokens: ``fixed``, ``lognormal`` or ``uniform``, with its numbers."""

    shape: str
    numbers: Mapping[str, float]

    def draw(self, count: int, rng: np.random.Generator) -> Int64s:
        """``count`` lengths in whole tokens, at least 1."""
        numbers = self.numbers
        if self.shape == "fixed":
            return np.full(count, int(numbers["tokens"]), dtype=np.int64)
        if self.shape == "uniform":
            return rng.integers(int(numbers["low"]), int(numbers["high"]) + 1, count, dtype=np.int64)
        # E[X] = exp(mu + sigma^2 / 2) for ln X ~ N(mu, sigma^2), hence mu from the mean of X.
        mu = math.log(numbers["mean"]) - numbers["sigma"] ** 2 / 2
        tokens = np.rint(rng.lognormal(mu, numbers["sigma"], count))
        return np.clip(tokens, 1, numbers["max"]).astype(np.int64)


@dataclass(frozen=True)
class Arrivals:
    """Arrivals by ``poisson``, ``gamma`` (with its cv), ``fixed``, ``at_once``; ``where`` is its key."""

    shape: str
    numbers: Mapping[str, float]
    where: str

    def draw(self, count: int, rate_per_s: float, rng: np.random.Generator) -> Int64s:
        """``count`` ascending arrivals in ps at ``rate_per_s`` on average, the first after one gap.

        ``at_once`` puts all at 0. Each gap is rounded to whole picoseconds, then summed in integers. Raises
        ``InputError`` where the arrivals would span more than ``LONGEST_SPAN_PS``.
        """
        if self.shape == "at_once":
            return np.zeros(count, dtype=np.int64)
        with np.errstate(over="ignore"):  # an infinite sum is refused below
            gaps = np.rint(self._gaps(count, rng) / rate_per_s * PS_PER_S)
            span = float(gaps.sum())
        if span > LONGEST_SPAN_PS:
            raise InputError(
                f"{self.where} = {self.shape!r}: {count:,} arrivals at {rate_per_s} requests/s span more "
                f"than {LONGEST_SPAN_PS} ps (69 days); allowed: fewer requests or a higher rate"
            )
        return np.cumsum(gaps.astype(np.int64))

    def _gaps(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Gaps with a mean of 1; gamma of shape 1/cv^2 and scale cv^2 has the coefficient of variation cv."""
        if self.shape == "poisson":
            return rng.exponential(size=count)
        if self.shape == "gamma":
            square = self.numbers["cv"] ** 2
            return rng.gamma(1 / square, square, count)
        return np.ones(count)


def parse_lengths(text: int | str, where: str) -> Lengths:
    """Read a number of tokens or the name of a distribution.

    ``where`` is the key of the configuration; raises ``InputError`` that names it for anything else.
    """
    allowed = (
        f"a whole number of tokens from 1 to {MOST_TOKENS:,}, 'lognormal(mean=1155, sigma=1.1)' (mean in "
        "tokens; max=14050 clips), 'uniform(low=1, high=100)'"
    )
    if not isinstance(text, bool) and re.fullmatch(r"\s*[+-]?[0-9.]\S*\s*", str(text)):
        tokens = _number(str(text), _TOKENS)
        if isinstance(tokens, str):
            raise InputError(f"{where} = {text!r}: {tokens}; allowed: {allowed}")
        return Lengths("fixed", {"tokens": tokens})
    shape, numbers = _parse(text, where, _LENGTHS, allowed)
    if shape == "uniform" and numbers["low"] > numbers["high"]:
        raise InputError(f"{where} = {text!r}: low is above high; allowed: low from 1 to high")
    return Lengths(shape, numbers)


def parse_arrivals(text: str, where: str) -> Arrivals:
    """Read the name of an arrival process; ``where`` and errors as for ``parse_lengths``."""
    allowed = "'poisson', 'gamma(cv=2)' (cv from 0.001 to 100), 'fixed', 'at_once'"
    return Arrivals(*_parse(text, where, _ARRIVALS, allowed), where)


def _parse(
    text: int | str, where: str, shapes: Mapping[str, Mapping[str, _Number]], allowed: str
) -> tuple[str, dict[str, float]]:
    """``name(key=number, ...)`` by the table of ``shapes``."""
    match = _CALL.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] not in shapes:
        raise InputError(f"{where} = {text!r}: unknown; allowed: {allowed}")
    wanted = shapes[match[1]]
    numbers: dict[str, float] = {}
    problem = ""
    for part in (match[2] or "").split(",") if (match[2] or "").strip() else []:
        name, _, value = (piece.strip() for piece in part.partition("="))
        number = _number(value, wanted[name]) if name in wanted else f"parameter {name!r} is unknown"
        if isinstance(number, str) or name in numbers:
            problem = problem or (number if isinstance(number, str) else f"{name} is given twice")
            continue
        numbers[name] = number
    for name, bounds in wanted.items():
        if name not in numbers and bounds.default is not None:
            numbers[name] = bounds.default
        elif name not in numbers:
            problem = problem or f"{name} is missing"
    if problem:
        raise InputError(f"{where} = {text!r}: {problem}; allowed: {allowed}")
    return match[1], numbers


def _number(text: str, bounds: _Number) -> float | str:
    """The number, or what is wrong with it."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if bounds.low <= number <= bounds.high and (number == int(number) or not bounds.whole):
        return number
    kind = "a whole number" if bounds.whole else "a number"
    return f"{text!r} is not {kind} from {bounds.low:g} to {bounds.high:g}"
