"""Norms, activation functions, rotations: what treats each row or element alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from node.dataflow.attributes import Norm, Rope, Rotary, Transpose
from node.dataflow.batch import Batch
from node.dataflow.graph import Operator
from node.dataflow.meaning.linear import as_complex, as_pairs
from node.dataflow.meaning.operands import Array, Operands
from node.errors import InputError

# erf to 1.5e-7: Abramowitz and Stegun 7.1.26
ERF_P, ERF = 0.3275911, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
TANH_GELU = np.sqrt(2 / np.pi), 0.044715  # Hendrycks and Gimpel 2016
QUICK_GELU = 1.702  # CLIP


def norm(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """RMS norm: x / rms(x) times its weight; layer norm: (x - mean) / deviation times its weight, plus its bias."""
    weights = operands.weights(op.name)
    normed, _ = statistics(op, inputs[0])
    made = normed * weights[0]
    return ((made + weights[1] if len(weights) > 1 else made).reshape(inputs[0].shape),)


def norm_gradient(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """dX = r (g - x' mean(g x')) with x' the normed input and g = dY w; of layer norms also less mean(g). dW, db."""
    source, gradient = inputs
    weights = operands.weights(op.weights_of)
    normed, scale = statistics(op, source)
    rows = gradient.reshape(normed.shape)
    weighted = rows * weights[0]
    made = weighted - normed * (weighted * normed).mean(axis=1, keepdims=True)
    of_weights = [(rows * normed).sum(axis=0)]
    if len(weights) > 1:
        made = made - weighted.mean(axis=1, keepdims=True)
        of_weights.append(rows.sum(axis=0))
    return (made * scale).reshape(source.shape), np.concatenate(of_weights)


def statistics(op: Operator, source: Array) -> tuple[Array, Array]:
    """The normed rows before weights, and what each was multiplied with."""
    assert isinstance(op.attributes, Norm)
    rows = source.reshape(-1, op.attributes.width)
    if op.function.startswith("layer_norm"):
        rows = rows - rows.mean(axis=1, keepdims=True)
    squares = np.add.reduce(rows * rows, axis=1, keepdims=True) / np.float32(op.attributes.width)
    scale = (1 / np.sqrt(squares + op.attributes.epsilon)).astype(np.float32)
    return rows * scale, scale


def add(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The sum of all inputs."""
    made = inputs[0]
    for term in inputs[1:]:
        made = made + term
    return (made,)


def multiply(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The product of two."""
    return (inputs[0] * inputs[1],)


def multiply_gradient(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Of each factor the other times dY."""
    gradient, left, right = inputs
    return gradient * right, gradient * left


def silu(x: Array) -> tuple[Array, Array]:
    """x sigmoid(x), and its slope."""
    sigmoid = np.asarray(1 / (1 + np.exp(-x)), dtype=np.float32)
    return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))


def quick_gelu(x: Array) -> tuple[Array, Array]:
    """x sigmoid(1.702 x), and its slope."""
    made, slope = silu(np.float32(QUICK_GELU) * x)
    return made / np.float32(QUICK_GELU), slope


def gelu(x: Array) -> tuple[Array, Array]:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), and its slope."""
    root, cubic = (np.float32(factor) for factor in TANH_GELU)
    tanh = np.tanh(root * (x + cubic * x * x * x))
    inner = root * (1 + 3 * cubic * x * x)
    return x * (1 + tanh) / 2, (1 + tanh) / 2 + x * (1 - tanh * tanh) * inner / 2


def gelu_erf(x: Array) -> tuple[Array, Array]:
    """x times the normal distribution's probability below x, and its slope."""
    z = np.abs(x) / np.float32(np.sqrt(2))
    t = np.asarray(1 / (1 + np.float32(ERF_P) * z), dtype=np.float32)
    series = np.zeros_like(t)
    for factor in reversed(ERF):
        series = (series + np.float32(factor)) * t
    density = np.asarray(np.exp(-z * z), dtype=np.float32)
    below = (1 + np.sign(x) * (1 - series * density)) / np.float32(2)
    return x * below, below + x * density / np.float32(np.sqrt(2 * np.pi))


Curve = Callable[[Array], tuple[Array, Array]]
CURVES: dict[str, Curve] = {"silu": silu, "quick_gelu": quick_gelu, "gelu": gelu, "gelu_erf": gelu_erf}


def activated(op: Operator, inputs: Sequence[Array], operands: Operands, *, curve: Curve) -> tuple[Array, ...]:
    """An activation function of each element."""
    return (curve(inputs[0])[0],)


def activated_gradient(op: Operator, inputs: Sequence[Array], operands: Operands, *, curve: Curve) -> tuple[Array, ...]:
    """dY times the function's slope."""
    return (inputs[0] * curve(inputs[1])[1],)


def rotary(op: Operator, inputs: Sequence[Array], operands: Operands, *, sign: int = 1) -> tuple[Array, ...]:
    """Each head's halves (a, b), turned by the token's angles: (a cos - b sin, b cos + a sin). ``sign`` -1: back."""
    assert isinstance(op.attributes, Rotary)
    dim = op.attributes.dim
    cos, sin = turns(operands.batch, op.attributes)
    sin = sign * sin
    made = []
    for array in inputs:
        heads = array.reshape(len(array), -1, dim)
        a, b = heads[..., : dim // 2], heads[..., dim // 2 :]
        made.append(np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(array.shape))
    return tuple(made)


@lru_cache(maxsize=4)
def turns(batch: Batch, rotary: Rotary) -> tuple[Array, Array]:
    """(tokens, 1, dim / 2): cosine and sine of each token's angles, which every layer of a pass needs."""
    angles = batch.positions[:, None, None] * frequencies(rotary.rope, rotary.dim)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


rotary_gradient = partial(rotary, sign=-1)


def frequencies(rope: Rope, dim: int) -> np.ndarray:
    """(dim / 2,): radians per token; raises ``InputError`` for a kind of scaling that is not known."""
    plain = rope.theta ** -(np.arange(0, dim, 2) / dim)
    if rope.kind not in ("default", "linear", "llama3"):
        raise InputError(f"rope scaling {rope.kind!r}: is not supported; default, linear and llama3 are")
    if rope.kind != "llama3":
        return np.asarray(plain / rope.factor)
    turns = rope.original * plain / (2 * np.pi)  # within the original context
    kept = np.clip((turns - rope.low) / (rope.high - rope.low), 0, 1)
    return np.asarray(plain * (kept + (1 - kept) / rope.factor))


def complex_multiply(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Each point times a complex factor."""
    return (as_pairs(as_complex(inputs[0]) * as_complex(operands.weights(op.name))),)


def transpose(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Each sequence's points as a matrix of ``rows``, transposed."""
    assert isinstance(op.attributes, Transpose)
    source = inputs[0]
    matrix = source.reshape(len(source), op.attributes.rows, -1, *source.shape[2:])
    return (np.ascontiguousarray(matrix.swapaxes(1, 2)).reshape(source.shape),)
