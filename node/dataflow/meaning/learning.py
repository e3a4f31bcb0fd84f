"""The loss and the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from node.dataflow.attributes import Adam, Rows
from node.dataflow.graph import Operator
from node.dataflow.meaning.operands import Array, Operands


def exponentials(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """exp(logit - most), and of each token (most, sum of these, the target's logit) over this socket's words."""
    logits = inputs[0]
    held, index = _target(op, operands, logits.shape[1])
    most = logits.max(axis=1, keepdims=True)
    made = np.exp(logits - most)
    target = np.where(held, logits[np.arange(len(logits)), index], 0)
    return made, np.stack([most[:, 0], made.sum(axis=1), target], axis=1)


def log_sum_exp(parts: Sequence[Array]) -> Array:
    """The parts of all sockets as those of all words; sums in the order of sockets, so that each token's is its own."""
    most = reduce(np.maximum, [part[:, 0] for part in parts])
    total = reduce(np.add, [part[:, 1] * np.exp(part[:, 0] - most) for part in parts])
    return np.stack([most, total, reduce(np.add, [part[:, 2] for part in parts])], axis=1)


def loss_gradient(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Probability less one at the target, by the number of tokens; and the cross-entropy of each token.

    Inputs: the exponentials, the parts they were made with, and where there are more sockets their sums.
    """
    made, parts, sums = inputs[0], inputs[1], inputs[-1]
    tokens = len(made)
    gradient = made * (np.exp(parts[:, 0] - sums[:, 0]) / sums[:, 1])[:, None]
    held, index = _target(op, operands, made.shape[1])
    gradient[np.arange(tokens)[held], index[held]] -= 1
    loss = np.log(sums[:, 1]) + sums[:, 0] - sums[:, 2]
    return gradient / np.float32(tokens), loss[:, None]


def adam(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """(gradient, master weights, moments) -> (weights, master weights, moments), one step on."""
    rule = op.attributes
    assert isinstance(rule, Adam)
    gradient, master, first, second = inputs
    mean = rule.first * first + (1 - rule.first) * gradient
    square = rule.second * second + (1 - rule.second) * gradient * gradient
    change = rule.rate * mean / (np.sqrt(square) + rule.epsilon)
    updated = np.asarray(master - change, dtype=np.float32)
    return updated, updated, mean, square


def _target(op: Operator, operands: Operands, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens have their target among this socket's words, and which of them it is (0 where not)."""
    assert isinstance(op.attributes, Rows)
    index = operands.targets - op.attributes.first
    held = (index >= 0) & (index < words)
    return held, np.where(held, index, 0)
