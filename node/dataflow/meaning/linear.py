"""Products with weights, and rows of tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from node.dataflow.attributes import Rows
from node.dataflow.graph import Operator
from node.dataflow.matrix import Matrix
from node.dataflow.meaning.operands import Array, Operands


def product(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Y = X W + b, row by row."""
    matrix, weights = _matrix(op), operands.weights(op.weights_of or op.name)
    made = inputs[0].reshape(-1, matrix.rows) @ weights[: matrix.rows]
    if matrix.bias:
        made = made + weights[matrix.rows]
    return (made.reshape(len(inputs[0]), -1),)


def transposed(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Y = X W^T with the weights of another operator, without its bias."""
    matrix, weights = _matrix(op), operands.weights(op.weights_of)
    made = inputs[0].reshape(-1, matrix.rows) @ weights[: matrix.columns].T
    return (made.reshape(len(inputs[0]), -1),)


def weight_gradient(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """dW = X^T dY, of a sparse matrix where W is not zero; then db, the sum of dY."""
    matrix, (source, gradient) = _matrix(op), inputs
    rows = gradient.reshape(-1, matrix.columns)
    made = source.reshape(-1, matrix.rows).T @ rows
    held = made[operands.weights(op.weights_of)[: matrix.rows] != 0] if matrix.density < 1 else made.ravel()
    return (np.concatenate([held, rows.sum(axis=0)]) if matrix.bias else held,)


def dft(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Rows of complex numbers times a complex matrix (n, n, 2); real input and output lack the imaginary part."""
    weights = as_complex(operands.weights(op.name))
    real_in, real_out = (len(tensor.shape) == 1 for tensor in (*op.inputs, *op.outputs))
    source = inputs[0] if real_in else as_complex(inputs[0])
    made = (source.reshape(-1, len(weights)) @ weights).reshape(len(source), -1)
    return (made.real if real_out else as_pairs(made),)


def as_complex(array: Array) -> np.ndarray:
    """(.., 2) -> (..) complex."""
    return np.ascontiguousarray(array, dtype=np.float32).view(np.complex64)[..., 0]


def as_pairs(array: np.ndarray) -> Array:
    """(..) complex -> (.., 2)."""
    return np.stack([array.real, array.imag], axis=-1)


def gather(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Of each token its row of the table; zeros where another socket holds it."""
    table, held, index = _rows(op, operands)
    made = np.zeros((len(held), table.shape[1]), dtype=np.float32)
    made[held] = table[index[held]]
    return (made,)


def gather_gradient(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Each token's gradient is added to its row; the head's gradient too where it uses the same table."""
    table, held, index = _rows(op, operands)
    made = np.zeros_like(table)
    np.add.at(made, index[held], inputs[0][held])
    return (sum((more for more in inputs[1:]), made.ravel()),)


def positions(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """To each token the row of the table for its place is added."""
    return (inputs[0] + operands.weights(op.name)[operands.batch.positions],)


def positions_gradient(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Each token's gradient is added to the row of its place."""
    made = np.zeros_like(operands.weights(op.weights_of))
    np.add.at(made, operands.batch.positions, inputs[0])
    return (made.ravel(),)


def class_token(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """A class token before the patches of each image, then positions added: the table's first row is the token."""
    table = operands.weights(op.name)
    patches = inputs[0].reshape(len(inputs[0]), -1, table.shape[1])
    first = np.broadcast_to(table[0], (len(patches), 1, table.shape[1]))
    return ((np.concatenate([first, patches], axis=1) + table[1:]).reshape(len(patches), -1),)


def drop_first(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """Of each image's rows all but the first, which is the class token's."""
    kept = op.outputs[0].shape[0]
    return (inputs[0][:, -kept:],)


def place(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The rows of patches take the places that the prompt keeps for them."""
    made = inputs[0].copy()
    made[operands.tokens < 0] = inputs[1].reshape(-1, made.shape[1])
    return (made,)


def _rows(op: Operator, operands: Operands) -> tuple[Array, np.ndarray, np.ndarray]:
    """The table, which tokens have their row in it, and which row."""
    assert isinstance(op.attributes, Rows)
    table = operands.weights(op.weights_of or op.name)
    index = operands.tokens - op.attributes.first
    return table, (operands.tokens >= 0) & (index >= 0) & (index < len(table)), index


def _matrix(op: Operator) -> Matrix:
    assert op.matrix is not None
    return op.matrix
