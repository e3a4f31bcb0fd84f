"""The meaning of each kind of operator, by what its kind, function or collective is called.

A tensor per tokens (sequences, pairs) is an array with a row for each, of the tensor's shape; one per constant has that
shape itself. So an array has exactly the elements that traffic is counted by, and ``compute`` holds every result to it.
Arithmetic is float32. A collective needs other sockets and has no meaning here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from node.dataflow.form import Step
from node.dataflow.graph import Operator, Tensor
from node.dataflow.meaning import attention, learning, linear, pointwise
from node.dataflow.meaning.operands import Array, Operands
from node.errors import InvariantError

Meaning = Callable[[Operator, Sequence[Array], Operands], tuple[Array, ...]]


def compute(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The arrays of ``op.outputs`` from those of ``op.inputs``.

    Raises ``InvariantError`` where a result has another shape than its tensor says.
    """
    step = operands.batch.step
    if _empty(op, inputs):
        return tuple(np.zeros(shape_of(tensor, step), dtype=np.float32) for tensor in op.outputs)
    made = MEANINGS[op.meaning](op, inputs, operands)
    for tensor, array in zip(op.outputs, made, strict=True):
        if array.shape != (shape := shape_of(tensor, step)):
            raise InvariantError(f"operator {op.name} made {tensor.name} of shape {array.shape}, not {shape}")
    return tuple(array if array.dtype == np.float32 else array.astype(np.float32) for array in made)


def _empty(op: Operator, inputs: Sequence[Array]) -> bool:
    """Whether there is nothing to compute: of a model with fewer heads than sockets, some sockets have none."""
    return (op.matrix is not None and op.matrix.elements == 0) or any(array.size == 0 for array in inputs)


def shape_of(tensor: Tensor, step: Step) -> tuple[int, ...]:
    """The shape of a tensor's array in a step."""
    return tensor.shape if tensor.per == "constant" else (getattr(step, tensor.per), *tensor.shape)


MEANINGS: dict[str, Meaning] = {
    "gemm": linear.product,
    "transposed": linear.transposed,
    "weight_gradient": linear.weight_gradient,
    "dft": linear.dft,
    "gather": linear.gather,
    "gather_gradient": linear.gather_gradient,
    "positions": linear.positions,
    "positions_gradient": linear.positions_gradient,
    "class_token": linear.class_token,
    "drop_first": linear.drop_first,
    "place": linear.place,
    "rms_norm": pointwise.norm,
    "layer_norm": pointwise.norm,
    "rms_norm_gradient": pointwise.norm_gradient,
    "layer_norm_gradient": pointwise.norm_gradient,
    "add": pointwise.add,
    "multiply": pointwise.multiply,
    "multiply_gradient": pointwise.multiply_gradient,
    **{name: partial(pointwise.activated, curve=curve) for name, curve in pointwise.CURVES.items()},
    **{f"{name}_gradient": partial(pointwise.activated_gradient, curve=c) for name, c in pointwise.CURVES.items()},
    "rotary": pointwise.rotary,
    "rotary_gradient": pointwise.rotary_gradient,
    "complex_multiply": pointwise.complex_multiply,
    "transpose": pointwise.transpose,
    "append": attention.append,
    "scores": attention.scores,
    "scores_left": attention.scores_left,
    "scores_right": attention.scores_right,
    "softmax": attention.softmax,
    "softmax_gradient": attention.softmax_gradient,
    "values": attention.values,
    "values_left": attention.values_left,
    "values_right": attention.values_right,
    "image_scores": attention.image_scores,
    "image_softmax": attention.image_softmax,
    "image_values": attention.image_values,
    "exponentials": learning.exponentials,
    "loss_gradient": learning.loss_gradient,
    "adam": learning.adam,
}
