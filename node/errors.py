"""What goes wrong, by whose fault it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class InputError(ValueError):
    """A mistake in what the user gave: one line that says what, the value, what is allowed, where to mend it."""


class OutOfMemoryError(InputError):
    """A tier has no room: names tier, socket, bytes asked, bytes free and the largest hole."""

    def __init__(self, tier: str, socket: str, *, asked: int, free: int, largest_hole: int, hint: str) -> None:
        super().__init__(
            f"out of memory in {tier} of {socket}: asked for {asked:,} bytes, {free:,} free, "
            f"largest hole {largest_hole:,}; {hint}"
        )
        self.tier, self.socket = tier, socket
        self.asked, self.free, self.largest_hole = asked, free, largest_hole


class HardwareError(RuntimeError):
    """A socket was told to do what its hardware cannot: out of range, overlapping, or not alive."""


class RefusedError(HardwareError):
    """A window of commands stopped at one that was refused; ``done`` is what came of those before it."""

    def __init__(self, reason: str, done: npt.NDArray[np.int64]) -> None:
        super().__init__(reason)
        self.done = done


class InvariantError(RuntimeError):
    """A conservation law does not hold: a defect of the emulator, never of its input."""
