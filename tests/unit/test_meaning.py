"""Do operators compute what they are called? Worked by hand; models as a whole are in tests/differential."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from node.dataflow.attributes import Adam, Heads, Norm, Rope, Rows
from node.dataflow.batch import Batch
from node.dataflow.graph import Operator, Tensor
from node.dataflow.matrix import Matrix
from node.dataflow.meaning.compute import compute
from node.dataflow.meaning.learning import log_sum_exp
from node.dataflow.meaning.operands import Array
from node.dataflow.meaning.pointwise import CURVES, frequencies
from node.dataflow.operators import activation, attention_scores, attention_values, gather, gemm, norm, softmax
from node.errors import InputError, InvariantError

X, Y = activation("x", 4), activation("y", 6)
RANDOM = np.random.default_rng(3)


@dataclass
class Given:
    """Operands by hand."""

    batch: Batch = field(default_factory=lambda: Batch((2,), (0,)))
    held: dict[str, Array] = field(default_factory=dict)
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    targets: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    cache: tuple[Array, Array] | None = None

    def weights(self, operator: str) -> Array:
        return self.held[operator]

    def append(self, keys: Array, values: Array) -> None:
        self.cache = keys, values

    def keys(self, sequence: int) -> Array:
        assert self.cache is not None
        return self.cache[0]

    def values(self, sequence: int) -> Array:
        assert self.cache is not None
        return self.cache[1]


def _random(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_a_bias_is_the_last_row() -> None:
    op = gemm("g", X, Y, Matrix(4, 6, 2, bias=True))
    x, w = _random(2, 4), _random(5, 6)
    (made,) = compute(op, [x], Given(held={"g": w}))
    np.testing.assert_allclose(made, x @ w[:4] + w[4], rtol=1e-6)


def test_a_result_has_the_elements_that_traffic_counts() -> None:
    op = replace(gemm("g", X, Y, Matrix(4, 6, 2)), outputs=(activation("y", 5),))
    with pytest.raises(InvariantError, match=r"operator g made y of shape \(2, 6\), not \(2, 5\)"):
        compute(op, [_random(2, 4)], Given(held={"g": _random(4, 6)}))


def test_an_embedding_is_zero_where_another_socket_has_the_row() -> None:
    op = gather("e", X, Matrix(3, 4, 2), first=10)
    table = _random(3, 4)
    (made,) = compute(op, [], Given(Batch((4,), (0,)), {"e": table}, np.array([9, 10, 12, 13])))
    np.testing.assert_array_equal(made, [np.zeros(4), table[0], table[2], np.zeros(4)])


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_norm_has_mean_square_one(layer_norm: bool) -> None:
    op = norm("n", X, X, Norm(4, 0.0), weight_bytes=2, layer_norm=layer_norm)
    weights = np.ones((1 + layer_norm, 4), dtype=np.float32)
    weights[1:] = 0
    (made,) = compute(op, [_random(2, 4) + 3], Given(held={"n": weights}))
    np.testing.assert_allclose((made * made).mean(axis=1), 1, rtol=1e-5)
    assert bool(np.allclose(made.mean(axis=1), 0, atol=1e-5)) is layer_norm


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("quick_gelu", lambda x: x / (1 + math.exp(-1.702 * x))),
        ("gelu", lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("gelu_erf", lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2)))),
    ],
)
def test_activation_functions_and_their_slopes(name: str, exact: Callable[[float], float]) -> None:
    points = np.linspace(-6, 6, 241, dtype=np.float32)
    made, slope = CURVES[name](points)
    np.testing.assert_allclose(made, [exact(float(x)) for x in points], atol=2e-6)
    difference = [(exact(float(x) + 1e-4) - exact(float(x) - 1e-4)) / 2e-4 for x in points]
    np.testing.assert_allclose(slope, difference, atol=1e-5)


def test_attention_over_a_cache_with_shared_kv_heads() -> None:
    """Three query heads on two KV heads, one new token after four, ALiBi on the last head."""
    heads = Heads((0, 0, 1), 5, (0.0, 0.0, 0.5))
    q, s, p, o = activation("q", 15), activation("s", 3, "pairs"), activation("p", 3, "pairs"), activation("o", 15)
    keys, values, query = _random(5, 10), _random(5, 10), _random(1, 15)
    given = Given(Batch((1,), (4,)), cache=(keys, values))
    (scores,) = compute(attention_scores(q, s, heads), [query], given)
    (chances,) = compute(softmax(s, p, heads), [scores], given)
    (made,) = compute(attention_values(p, o, heads), [chances], given)
    for head, of in enumerate(heads.kv):
        mine = slice(5 * head, 5 * head + 5)
        k, v = (cached[:, 5 * of : 5 * of + 5] for cached in (keys, values))
        expected = k @ query[0, mine] / math.sqrt(5) - heads.slopes[head] * np.arange(4, -1, -1)
        weights = np.exp(expected) / np.exp(expected).sum()
        np.testing.assert_allclose(chances[:, head], weights, rtol=1e-5)
        np.testing.assert_allclose(made[0, mine], weights @ v, rtol=1e-4, atol=1e-6)


def test_softmax_does_not_overflow() -> None:
    heads, s = Heads((0,), 1), activation("s", 1, "pairs")
    (made,) = compute(softmax(s, s, heads), [np.array([[1e4], [1e4], [0]], np.float32)], Given(Batch((2,), (0,))))
    assert made.ravel().tolist() == [1.0, 1.0, 0.0]


def test_a_gradient_of_sparse_weights_is_where_they_are_not_zero() -> None:
    matrix = Matrix(4, 6, 2, density=0.25)
    op = Operator(
        "w",
        "gemm",
        (X, Y),
        (Tensor("dw", "constant", (6,)),),
        matrix=matrix,
        function="weight_gradient",
        weights_of="g",
    )
    weights = np.zeros((4, 6), dtype=np.float32)
    weights.flat[[1, 5, 6, 11, 17, 23]] = 1
    x, dy = _random(2, 4), _random(2, 6)
    (made,) = compute(op, [x, dy], Given(held={"g": weights}))
    np.testing.assert_allclose(made, (x.T @ dy).flat[[1, 5, 6, 11, 17, 23]], rtol=1e-6)


def test_adam_walks_by_its_rate_at_first() -> None:
    """Of a first step with both corrections in the rate, each weight moves by about the rate against its gradient."""
    rate = 0.01
    corrected = Adam(rate=rate * math.sqrt(1 - 0.999) / (1 - 0.9), epsilon=1e-12)
    state = Tensor("s", "constant", (3,), "fp32")
    op = Operator("a", "elementwise", (state,) * 4, (state,) * 4, function="adam", attributes=corrected)
    gradient, master, zero = np.array([2, -1e-3, 5], np.float32), _random(3), np.zeros(3, np.float32)
    updated, kept, first, second = compute(op, [gradient, master, zero, zero], Given())
    np.testing.assert_allclose(updated - master, -rate * np.sign(gradient), rtol=1e-4)
    np.testing.assert_array_equal(updated, kept)
    np.testing.assert_allclose(first, 0.1 * gradient, rtol=1e-5)
    np.testing.assert_allclose(second, 0.001 * gradient**2, rtol=1e-4)


def test_rotary_frequencies() -> None:
    """theta 10,000 over 8 elements: 1, 1/10, 1/100, 1/1000 radians a token; 32 tokens are 5.09, 0.509 .. turns."""
    plain = np.array([1, 0.1, 0.01, 0.001])
    np.testing.assert_allclose(frequencies(Rope(), 8), plain)
    np.testing.assert_allclose(frequencies(Rope(kind="linear", factor=4.0), 8), plain / 4)
    slowed = frequencies(Rope(kind="llama3", factor=8.0, original=32), 8)
    np.testing.assert_allclose(slowed, plain / [1, 8, 8, 8])


def test_rotary_frequencies_in_between() -> None:
    """2.546 turns in 16 tokens: (2.546 - 1) / (4 - 1) of the way from slowed to kept."""
    turns = 16 / (2 * math.pi)
    kept = (turns - 1) / 3
    expected = kept + (1 - kept) / 8
    found = frequencies(Rope(kind="llama3", factor=8.0, original=16), 8)[0]
    assert found == pytest.approx(expected)


def test_an_unknown_scaling_is_refused() -> None:
    with pytest.raises(InputError, match=r"rope scaling 'yarn': is not supported; default, linear and llama3 are"):
        frequencies(Rope(kind="yarn"), 8)


def test_an_operator_without_heads_makes_nothing_and_a_partial_sum_of_zero() -> None:
    none = activation("none", 0)
    (made,) = compute(gemm("q", X, none, Matrix(4, 0, 2)), [_random(2, 4)], Given())
    assert made.shape == (2, 0)
    (sums,) = compute(gemm("o", none, X, Matrix(0, 4, 2)), [made], Given())
    assert (sums == np.zeros((2, 4))).all()


def test_the_loss_of_a_vocabulary_in_parts() -> None:
    """Two sockets with 2 and 3 words: cross-entropy and its gradient as over all five."""
    logits, targets = _random(2, 5), np.array([1, 4])
    tokens = Tensor("l", "tokens", (2,)), Tensor("l", "tokens", (3,))
    parts, loss = Tensor("p", "tokens", (3,), "fp32"), Tensor("loss", "tokens", (1,), "fp32")
    made = []
    for local, first in zip(tokens, (0, 2), strict=True):
        op = Operator("e", "rowwise", (local,), (local, parts), function="exponentials", attributes=Rows(first))
        piece = np.ascontiguousarray(logits[:, first : first + local.shape[0]])
        made.append(compute(op, [piece], Given(targets=targets)))
    sums = log_sum_exp([part for _, part in made])
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for (exponentials, part), local, first in zip(made, tokens, (0, 2), strict=True):
        op = Operator(
            "g", "elementwise", (local, parts, parts), (local, loss), function="loss_gradient", attributes=Rows(first)
        )
        gradient, found = compute(op, [exponentials, part, sums], Given(targets=targets))
        expected = (chances - np.eye(5)[targets])[:, first : first + local.shape[0]] / 2
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
        np.testing.assert_allclose(found[:, 0], -np.log(chances[[0, 1], targets]), rtol=1e-5)
