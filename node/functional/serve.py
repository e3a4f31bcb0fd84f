"""A run of requests on one socket: prefill or decode steps, and the choice of each next token.

Every socket of a group has all logits and chooses for itself; equal numbers give equal choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from node.dataflow.batch import Batch
from node.dataflow.execute import Exchange
from node.dataflow.meaning.operands import Array
from node.functional.socket import ContentSocket, Range


class Part(NamedTuple):
    """A request in a run: ``tokens`` to process, after ``before`` that lie in its KV range."""

    request: int
    tokens: Sequence[int]
    before: int
    kv: Range


class Work(NamedTuple):
    """A run of ``parts`` with the weights at an address: a prefill, or up to so many decode ``steps``."""

    program: int
    weights: int
    parts: Sequence[Part]
    steps: int = 0


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest, or at a ``temperature`` drawn by ``seed``, request and position.

    ``ends``: tokens that end an answer.
    """

    temperature: float = 0.0
    seed: int = 0
    ends: frozenset[int] = frozenset()

    def choose(self, logits: Array, request: int, position: int) -> int:
        """From the logits of one request; of equal ones the first."""
        if self.temperature == 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.temperature
        chances = np.exp(scaled - scaled.max())
        drawn = np.random.default_rng([self.seed, request, position]).random()
        return int(np.searchsorted(np.cumsum(chances), drawn * chances.sum(), side="right"))


def serve(socket: ContentSocket, work: Work, sampling: Sampling) -> Exchange[list[list[int]]]:
    """Do ``work``; returns the tokens of each request in order. Decode ends early with the step in which one ends."""
    window = socket.programs[work.program].window
    kv = [part.kv for part in work.parts]
    before = [part.before for part in work.parts]
    tokens = [list(part.tokens) for part in work.parts]
    found: list[list[int]] = [[] for _ in work.parts]
    for _ in range(max(work.steps, 1)):
        batch = Batch(tuple(map(len, tokens)), tuple(before), window)
        words = np.array([token for part in tokens for token in part], dtype=np.int64)
        run = socket.step if work.steps else socket.prefill
        logits = yield from run(work.program, work.weights, batch, words, kv)
        before = [first + len(part) for first, part in zip(before, tokens, strict=True)]
        chosen = [
            sampling.choose(row, part.request, position)
            for row, part, position in zip(logits, work.parts, before, strict=True)
        ]
        tokens = [[token] for token in chosen]
        for answer, token in zip(found, chosen, strict=True):
            answer.append(token)
        if sampling.ends.intersection(chosen):
            break
    return found
