"""The fewest nodes that will do, in few tries."""

from __future__ import annotations

from collections.abc import Callable

Test = Callable[[int], bool]


def fewest(meets: Test, fails_clearly: Test, guess: int, most: int) -> int | None:
    """The least number of nodes, 1 to ``most``, that ``meets``; None where ``most`` do not.

    From ``guess`` on, by steps that double until the answer is between two tries, then by halving. More nodes are
    expected to do better. As this need not be so, and what is measured has an interval, smaller numbers are tried
    one by one until one ``fails_clearly``: it is the answer's next smaller one, at least, that has been tried.
    """
    low, high = _around(meets, max(1, min(guess, most)), most)
    if high is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if meets(middle):
            high = middle
        else:
            low = middle
    below = high - 1
    while below and not fails_clearly(below):
        if meets(below):
            high = below
        below -= 1
    return high


def _around(meets: Test, guess: int, most: int) -> tuple[int, int | None]:
    """A number that does not meet, or 0, and a greater one that does, or None."""
    at, step = guess, 1
    if meets(at):
        low = at - 1
        while low and meets(low):
            at, step = low, 2 * step
            low = max(0, at - step)
        return low, at
    while at < most:
        low, at, step = at, min(most, at + step), 2 * step
        if meets(at):
            return low, at
    return most, None
