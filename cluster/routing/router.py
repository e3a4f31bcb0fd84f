"""A router: prompt to expert, by ridge regression on the rows of an encoder.

Y: 1 where an example is an expert's, else 0. X: the examples' rows. Scores of a row x: x X' (X X' + ridge I)^-1 Y, that
is, what share of prompts like x an expert has, drawn towards 0 the less x is like any example. The best score is the
confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cluster.routing.encoders import ENCODERS, Encoder
from node.errors import InputError

Examples = Mapping[str, Sequence[str]]
Array = npt.NDArray[np.float64]
DECIMALS = 6  # of a score: what lies below is the order of sums, which must not settle a tie


@dataclass(frozen=True)
class Choice:
    """``confidence``: the best score, within 0 and 1; ``scores``: of every expert with examples."""

    expert: str
    confidence: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Router:
    """A fitted router; ``experts`` are those with examples, a column of ``weights`` each."""

    experts: tuple[str, ...]
    general: str | None
    bound: float
    encoder: Encoder
    weights: Array

    def route(self, prompt: str) -> Choice:
        """The expert of the best score, the first of equals; the general one where that is below the bound."""
        return self.choose((self.encoder.rows([prompt]) @ self.weights)[0])

    def choose(self, scores: Array) -> Choice:
        """The choice that scores, one per expert, lead to."""
        rounded = [round(float(score), DECIMALS) for score in scores]
        best = max(rounded, default=0.0)
        confidence = min(max(best, 0.0), 1.0)
        sure = confidence >= self.bound and confidence > 0
        expert = self.experts[rounded.index(best)] if sure or self.general is None else self.general
        return Choice(expert, confidence, dict(zip(self.experts, rounded, strict=True)))

    def at(self, bound: float) -> Router:
        """The same router with another bound."""
        return replace(self, bound=checked_bound(bound))


def fit(
    examples: Examples, general: str | None, encoder: Encoder = ENCODERS["ngrams"], bound: float | None = None
) -> Router:
    """A router for experts with example prompts; ``bound`` (0 to 1): the confidence below which ``general`` answers.

    Without ``general`` the best expert answers, whatever the confidence. Raises ``InputError`` naming an expert that no
    prompt can reach, an example that says nothing, a bound out of range or a general expert that is not there.
    """
    experts, prompts, owners = _examples(examples, general)
    rows = _rows(experts, prompts, owners, encoder)
    weights = rows.T @ np.linalg.solve(_gram(rows, encoder), np.eye(len(experts))[owners])
    bound = encoder.bound if bound is None else checked_bound(bound)
    return Router(experts, general, bound, encoder, weights)


def leave_one_out(router: Router, examples: Examples) -> list[tuple[str, str, Choice]]:
    """(owner, prompt, what ``router`` would choose, had it been fitted without this prompt) for every example.

    All copies of a prompt are left out with it, another expert's too. In closed form: with A = (X X' + ridge I)^-1, the
    scores without the rows S are Y_S - (A_SS)^-1 (A Y)_S.
    """
    experts, prompts, owners = _examples(examples, router.general)
    rows = _rows(experts, prompts, owners, router.encoder)
    targets = np.eye(len(experts))[owners]
    inverse = np.linalg.inv(_gram(rows, router.encoder))
    solved = inverse @ targets
    scores = np.empty_like(targets)
    copies: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        copies.setdefault(folded(prompt), []).append(index)
    for same in copies.values():
        scores[same] = targets[same] - np.linalg.solve(inverse[np.ix_(same, same)], solved[same])
    return [
        (experts[owner], prompt, router.choose(score))
        for owner, prompt, score in zip(owners, prompts, scores, strict=True)
    ]


def folded(prompt: str) -> str:
    """What is equal for prompts that differ in case and blanks only."""
    return " ".join(prompt.casefold().split())


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
    kept = [list({folded(prompt): prompt for prompt in reversed(examples[name])}.values())[::-1] for name in experts]
    owners = [index for index, prompts in enumerate(kept) for _ in prompts]
    return experts, [prompt for prompts in kept for prompt in prompts], owners


def _rows(experts: Sequence[str], prompts: Sequence[str], owners: Sequence[int], encoder: Encoder) -> Array:
    rows = encoder.rows(prompts).astype(np.float64)
    for row, prompt, owner in zip(rows, prompts, owners, strict=True):
        if not row.any():
            raise InputError(f"expert {experts[owner]!r}: example {prompt!r} says nothing: it has no words")
    return rows


def _gram(rows: Array, encoder: Encoder) -> Array:
    return rows @ rows.T + encoder.ridge * np.eye(len(rows))
