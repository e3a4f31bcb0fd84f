"""Sizes that are symbolic in what one pass over a model processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One pass: ``tokens`` processed, (query, key) ``pairs`` attended, KV ``context`` tokens read, ``sequences``.

    A prefill of n tokens has tokens = n, pairs = n (n + 1) / 2, context = n, sequences = 1; a decode step of
    batch b has tokens = sequences = b and pairs = context = the sum of the context lengths.
    """

    tokens: int
    pairs: int
    context: int
    sequences: int

    @property
    def parts(self) -> tuple[int, ...]:
        """What the coefficients of a ``Form`` are multiplied with."""
        return (1, self.tokens, self.pairs, self.context, self.sequences)


@dataclass(frozen=True, slots=True)
class Form:
    """A size that is linear in a ``Step``: FLOPs or bytes."""

    constant: float = 0
    tokens: float = 0
    pairs: float = 0
    context: float = 0
    sequences: float = 0

    def at(self, step: Step) -> float:
        """The size for one pass."""
        return (
            self.constant
            + self.tokens * step.tokens
            + self.pairs * step.pairs
            + self.context * step.context
            + self.sequences * step.sequences
        )

    def __add__(self, other: Form) -> Form:
        return Form(
            self.constant + other.constant,
            self.tokens + other.tokens,
            self.pairs + other.pairs,
            self.context + other.context,
            self.sequences + other.sequences,
        )

    def __mul__(self, factor: float) -> Form:
        return Form(*(factor * part for part in self.parts))

    @property
    def parts(self) -> tuple[float, ...]:
        """The coefficients, in the order of ``Step.parts``."""
        return (self.constant, self.tokens, self.pairs, self.context, self.sequences)

    @property
    def per_context(self) -> float:
        """Slope over the context of a decode step, where pairs and context are the same number."""
        return self.pairs + self.context


ZERO = Form()


def total(forms: Iterable[Form]) -> Form:
    """The sum of forms."""
    result = ZERO
    for form in forms:
        result = result + form
    return result


def causal_pairs(length: int, window: int | None) -> int:
    """(query, key) pairs of a causal prefill: token i attends to min(i, window) tokens."""
    if window is None or length <= window:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window
