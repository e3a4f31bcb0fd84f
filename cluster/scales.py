"""The axes of a chart: from values to places, and which values are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOG_FROM = 5  # times


def plain(value: float) -> str:
    """A number for an axis, as short as it is exact."""
    return f"{value:,.0f}" if abs(value) >= 1 and value == int(value) else f"{value:.6g}"


@dataclass(frozen=True)
class Axis:
    """``title`` says what, with its unit; ``show`` writes a value. ``names``: places 0, 1, 2 ... are these."""

    title: str
    log: bool = False
    show: Callable[[float], str] = plain
    names: tuple[str, ...] = ()


class Scale:
    """From values of an axis to places on ``length``; its ends are ticks, with ``pad`` a little beyond them.

    One over less than ``LOG_FROM`` times is not logarithmic. ``zero``: 0 is on it, unless it is logarithmic. All
    ``values`` of a logarithmic axis are above 0. ``tight``: its ends are the least and the greatest value.
    """

    def __init__(
        self,
        axis: Axis,
        values: Sequence[float],
        length: float,
        *,
        zero: bool,
        pad: bool = False,
        tight: bool = False,
    ) -> None:
        self.axis, self._length = axis, length
        self._log = axis.log and (not values or max(values) > LOG_FROM * min(values))
        if axis.names:
            self._low, self._high = -0.5, len(axis.names) - 0.5
            self.ticks = [float(place) for place in range(len(axis.names))]
        elif self._log:
            low, high = (math.log10(min(values)), math.log10(max(values))) if values else (0.0, 1.0)
            margin = 0.04 * (high - low) or 0.3
            self._low, self._high = low - margin, high + margin
            self.ticks = _log_ticks(self._low, self._high)
        else:
            low, high = (min(values), max(values)) if values else (0.0, 1.0)
            low = min(low, 0.0) if zero else low
            step = _step(high - low or abs(high) or 1.0)
            self._low = math.floor(low / step) * step
            self._high = max(math.ceil(high / step), math.floor(low / step) + 1) * step
            self.ticks = [tick * step for tick in range(round(self._low / step), round(self._high / step) + 1)]
            if pad:
                self._low, self._high = self._low - 0.4 * step, self._high + 0.4 * step
        if tight and values and min(values) < max(values):
            ends = (min(values), max(values))
            self._low, self._high = (math.log10(end) for end in ends) if self._log else ends
            self.ticks = [tick for tick in self.ticks if ends[0] <= tick <= ends[1]]

    def at(self, value: float) -> float:
        """The place of ``value``, of the scale's length."""
        place = math.log10(value) if self._log else value
        return (place - self._low) / (self._high - self._low) * self._length

    def label(self, tick: float) -> str:
        """What is written at a tick."""
        return self.axis.names[int(tick)] if self.axis.names else self.axis.show(tick)


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, 4 to 9 of which make ``span``."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= span / 4)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in a range of exponents; 2 and 5 times them too where that is short."""
    factors = (1, 2, 5) if high - low < 2.2 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, (len(powers) + 7) // 8)
    ticks = [float(f"{factor}e{power}") for power in powers if power % every == 0 for factor in factors]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]
