"""Virtual time held to wall time: a run that may not be ahead of the clock on the wall."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from node.errors import InputError
from node.units import PS_PER_S, Picoseconds

WINDOW_S = 0.5  # of wall time: how often the world is told of a run that is held to a pace
AT_ONCE_S = 0.1  # most that is slept without looking at the clock
FREE = "max"


def factor_of(text: str) -> float | None:
    """``--pace``: virtual seconds in a second of wall time; None where as many as can be."""
    if text == FREE:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise InputError(f"--pace {text!r}: must be a number above zero, virtual seconds in a second, or {FREE}")
    return found


def _never() -> bool:
    return False


@dataclass
class Pace:
    """``factor``: see ``factor_of``. ``lag_s``: by how much the run is late, in wall time.

    ``passed``: the virtual time that it has waited for so far. It waits no more where it is to ``hurry``.
    """

    factor: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    hurry: Callable[[], bool] = _never
    lag_s: float = 0.0
    passed: Picoseconds = 0
    _began: float = field(init=False)
    _ended: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def begin(self, at: Picoseconds = 0) -> None:
        """Virtual time ``at`` is now."""
        self._began, self.passed = self.clock(), at
        if self.factor is not None:
            self._began -= at / PS_PER_S / self.factor

    def end(self) -> None:
        """The run is over, and so is its time."""
        self._ended, self.lag_s = self.clock(), 0.0

    def wall_s(self) -> float:
        """How long it has been going on, or took."""
        return (self.clock() if self._ended is None else self._ended) - self._began

    def window(self) -> Picoseconds | None:
        """Virtual time in which the world is to be told once; None where that does not matter."""
        return None if self.factor is None else max(1, round(WINDOW_S * self.factor * PS_PER_S))

    def hold(self, now: Picoseconds) -> None:
        """Wait until the wall clock has come to ``now``."""
        if self.factor is None:
            return
        due = self._began + now / PS_PER_S / self.factor
        while (left := due - self.clock()) > 0 and not self.hurry():
            self.lag_s = 0.0
            self.passed = max(self.passed, now - round(left * self.factor * PS_PER_S))
            self.sleep(min(left, AT_ONCE_S))
        self.passed, self.lag_s = max(self.passed, now), max(0.0, self.clock() - due)
