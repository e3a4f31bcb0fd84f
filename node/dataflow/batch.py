"""The sequences that one pass runs, token by token: positions, and which keys each query sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from node.dataflow.form import Step

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Of each sequence ``new`` tokens are processed, after ``before`` that lie in the KV cache.

    ``window``: how many of the latest tokens a query sees, itself included. Arrays per token have the sequences' new
    tokens one after another; arrays per pair have for each of these the keys that it sees, oldest first.
    """

    new: tuple[int, ...]
    before: tuple[int, ...]
    window: int | None = None

    def __post_init__(self) -> None:
        if len(self.new) != len(self.before) or min((*self.new, *self.before, 0)) < 0:
            raise ValueError(f"new {self.new} and before {self.before}: must be as many, and not negative")

    @cached_property
    def step(self) -> Step:
        """What the pass costs by; its context are the keys that any query of a sequence sees."""
        most = [first + new if self.window is None else self.window + new - 1 for first, new in self.each]
        context = sum(min(first + new, seen) for (first, new), seen in zip(self.each, most, strict=True))
        return Step(sum(self.new), sum(int(mask.sum()) for mask in self.masks), context, len(self.new))

    @cached_property
    def positions(self) -> Ints:
        """(tokens,): of each token its place in its sequence, from 0."""
        return _joined([np.arange(first, first + new) for first, new in self.each])

    @cached_property
    def masks(self) -> list[Mask]:
        """Of each sequence (new, before + new): whether the query sees the key."""
        return [_mask(first, new, self.window) for first, new in self.each]

    @cached_property
    def whole(self) -> list[bool]:
        """Of each sequence whether its queries see all its keys, as in a decode step."""
        return [bool(mask.all()) for mask in self.masks]

    @cached_property
    def distances(self) -> Ints:
        """(pairs,): how many tokens the key lies before its query."""
        found = [mask.nonzero() for mask in self.masks]
        return _joined([first + query - key for first, (query, key) in zip(self.before, found, strict=True)])

    @cached_property
    def seen(self) -> Ints:
        """(tokens,): how many keys each token sees."""
        return _joined([mask.sum(axis=1) for mask in self.masks])

    @cached_property
    def first_pairs(self) -> Ints:
        """(tokens,): of each token which of the pairs is its first."""
        return np.cumsum(self.seen) - self.seen

    @cached_property
    def of_tokens(self) -> list[slice]:
        """Where each sequence's new tokens lie in an array per token."""
        return _spans(self.new)

    @cached_property
    def of_pairs(self) -> list[slice]:
        """Where each sequence's pairs lie in an array per pair."""
        return _spans([int(mask.sum()) for mask in self.masks])

    @property
    def each(self) -> list[tuple[int, int]]:
        """(before, new) of each sequence."""
        return list(zip(self.before, self.new, strict=True))


def _spans(counts: Sequence[int]) -> list[slice]:
    """Where each part lies in an array that has ``counts`` rows of each."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def _mask(first: int, new: int, window: int | None) -> Mask:
    query, key = np.arange(first, first + new)[:, None], np.arange(first + new)
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


def _joined(parts: Sequence[Ints]) -> Ints:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts] or [np.zeros(0, dtype=np.int64)])
