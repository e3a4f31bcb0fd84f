"""Images that arrive one after another, as a trace that ``coe run`` reads: a line of JSON for each."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np


def order(images: int, requests: int, seed: int | None) -> list[int]:
    """Which image each request is: all again and again, in the order given or, with a seed, shaken each time."""
    drawn = None if seed is None else np.random.default_rng(seed)
    found: list[int] = []
    while len(found) < requests:
        found += range(images) if drawn is None else drawn.permutation(images).tolist()
    return found[:requests]


def trace_lines(experts: Sequence[int], rate: float) -> str:
    """A request every 1 / ``rate`` seconds, each to its expert: times in ms, exact to the picosecond.

    An image is one pass, which a trace counts as one token in and one out.
    """
    lines = (
        {"timestamp": round(1000 * index / rate, 9), "input_length": 1, "output_length": 1, "expert": int(expert)}
        for index, expert in enumerate(experts)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)
