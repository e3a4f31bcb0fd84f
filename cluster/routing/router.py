"""A router: prompt to expert, by ridge regression on the rows of an encoder.

Y: 1 where an example is an expert's, else 0. X: the examples' rows. Scores of a row x: x X' (X X' + ridge I)^-1 Y, that
is, what share of prompts like x an expert has, drawn towards 0 the less x is like any example. How high
scores get depends on how many examples there are and how alike, so the confidence in a prompt is measured by them: the
share of the experts' own examples, each scored by a router fitted without it, whose best score is no higher.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cluster.routing.encoders import ENCODERS, Encoder
from node.errors import InputError

Examples = Mapping[str, Sequence[str]]
Array = npt.NDArray[np.float64]
BOUND = 0.08  # of best accuracy over both encoders, by leave-one-out, with a general expert without examples
DECIMALS = 6  # of a score: what lies below is the order of sums, which must not settle a tie


@dataclass(frozen=True)
class Choice:
    """``confidence``: the share of the experts' own examples that are no clearer; ``scores``: by expert."""

    expert: str
    confidence: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Router:
    """A fitted router; ``experts`` are those with examples, a column of ``weights`` each.

    ``typical``: the best score of every example but the general expert's, left out, in rising order.
    """

    experts: tuple[str, ...]
    general: str | None
    bound: float
    encoder: Encoder
    weights: Array
    typical: Array

    def route(self, prompt: str) -> Choice:
        """The expert of the best score, the first of equals; the general one below the bound, or at confidence 0."""
        return self.choose((self.encoder.rows([prompt]) @ self.weights)[0])

    def choose(self, scores: Array) -> Choice:
        """The choice that scores, one per expert, lead to."""
        rounded = [round(float(score), DECIMALS) for score in scores]
        best = max(rounded, default=0.0)
        below = int(np.searchsorted(self.typical, best, side="right")) if best > 0 else 0
        confidence = below / max(len(self.typical), 1)
        sure = confidence >= self.bound and confidence > 0
        expert = self.experts[rounded.index(best)] if sure or self.general is None else self.general
        return Choice(expert, confidence, dict(zip(self.experts, rounded, strict=True)))

    def at(self, bound: float) -> Router:
        """The same router with another bound."""
        return replace(self, bound=checked_bound(bound))


def fit(examples: Examples, general: str | None, encoder: Encoder = ENCODERS["ngrams"], bound: float = BOUND) -> Router:
    """A router for experts with example prompts; ``bound`` (0 to 1): the confidence below which ``general`` answers.

    Without ``general`` the best expert answers, whatever the confidence. Raises ``InputError`` naming an expert that no
    prompt can reach, an example that says nothing, a bound out of range or a general expert that is not there.
    """
    bound = checked_bound(bound)
    experts, prompts, owners = _examples(examples, general)
    rows = _rows(experts, prompts, owners, encoder)
    solved, left_out = _solve(rows, owners, prompts, encoder.ridge)
    best = [max(scores) for scores, owner in zip(left_out, owners, strict=True) if experts[owner] != general]
    typical = np.sort(np.round(best, DECIMALS))
    return Router(experts, general, bound, encoder, rows.T @ solved, typical)


def leave_one_out(router: Router, examples: Examples) -> list[tuple[str, str, Choice]]:
    """(owner, prompt, choice) for every example, by the scores of a router like this one, fitted without it."""
    experts, prompts, owners = _examples(examples, router.general)
    rows = _rows(experts, prompts, owners, router.encoder)
    _, left_out = _solve(rows, owners, prompts, router.encoder.ridge)
    return [
        (experts[owner], prompt, router.choose(scores))
        for owner, prompt, scores in zip(owners, prompts, left_out, strict=True)
    ]


def _solve(rows: Array, owners: Sequence[int], prompts: Sequence[str], ridge: float) -> tuple[Array, Array]:
    """A Y, where A = (X X' + ridge I)^-1, and the scores of each example, left out.

    All copies of a prompt are left out with it, another expert's too: without the rows S, theirs are
    Y_S - (A_SS)^-1 (A Y)_S.
    """
    targets = np.eye(max(owners, default=-1) + 1)[owners]
    inverse = np.linalg.inv(rows @ rows.T + ridge * np.eye(len(rows)))
    solved = inverse @ targets
    scores = np.empty_like(targets)
    copies: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        copies.setdefault(folded(prompt), []).append(index)
    for same in copies.values():
        scores[same] = targets[same] - np.linalg.solve(inverse[np.ix_(same, same)], solved[same])
    return solved, scores


def folded(prompt: str) -> str:
    """What is equal for prompts that differ in case, blanks and Unicode forms only."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def checked_bound(bound: float) -> float:
    """``bound``; ``InputError`` where it is not from 0 to 1."""
    if not 0 <= bound <= 1:
        raise InputError(f"bound {bound}: must be from 0 (always the best expert) to 1")
    return bound


def _examples(examples: Examples, general: str | None) -> tuple[tuple[str, ...], list[str], list[int]]:
    """Experts with examples; the prompts, each once per expert; the index of each one's expert."""
    if not examples:
        raise InputError("a router needs experts: there are none")
    if general is not None and general not in examples:
        raise InputError(f"general expert {general!r}: no such expert; there are {', '.join(examples)}")
    for name, given in examples.items():
        if not given and name != general:
            raise InputError(f"expert {name!r} has no examples and is not the general one: no prompt can reach it")
    experts = tuple(name for name, given in examples.items() if given)
    kept = [list({folded(prompt): prompt for prompt in examples[name]}.values()) for name in experts]
    owners = [index for index, prompts in enumerate(kept) for _ in prompts]
    return experts, [prompt for prompts in kept for prompt in prompts], owners


def _rows(experts: Sequence[str], prompts: Sequence[str], owners: Sequence[int], encoder: Encoder) -> Array:
    rows = encoder.rows(prompts).astype(np.float64)
    for row, prompt, owner in zip(rows, prompts, owners, strict=True):
        if not row.any():
            raise InputError(f"expert {experts[owner]!r}: example {prompt!r} says nothing: it has no words")
    return rows
