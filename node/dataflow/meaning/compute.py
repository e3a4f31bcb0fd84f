"""The meaning of each kind of operator, by what its kind, function or collective is called.

A tensor per tokens (sequences, pairs) is an array with a row for each, of the tensor's shape; one per constant has that
shape itself. So an array has exactly the elements that traffic is counted by, and ``compute`` holds every result to it.
Arithmetic is float32. A collective needs other sockets and has no meaning here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from node.dataflow.form import Step
from node.dataflow.graph import Operator, Tensor
from node.dataflow.meaning import attention, images, learning, linear, pointwise, windows
from node.dataflow.meaning.operands import Array, Operands
from node.errors import InvariantError

FLOAT32 = np.dtype(np.float32)
Meaning = Callable[[Operator, Sequence[Array], Operands], tuple[Array, ...]]


def compute(op: Operator, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
    """The arrays of ``op.outputs`` from those of ``op.inputs``.

    Raises ``InvariantError`` where a result has another shape than its tensor says.
    """
    return Prepared.of(op, operands.batch.step).compute(inputs, operands)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An ``operator`` in a step: its meaning, None where there is nothing to compute, and its results' ``shapes``.

    Of a model with fewer heads than sockets, some sockets have none.
    """

    operator: Operator
    meaning: Meaning | None
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, op: Operator, step: Step) -> Prepared:
        """``op``, no collective, in ``step``."""
        empty = (op.matrix is not None and op.matrix.elements == 0) or any(0 in shape_of(t, step) for t in op.inputs)
        return cls(op, None if empty else MEANINGS[op.meaning], tuple(shape_of(tensor, step) for tensor in op.outputs))

    def compute(self, inputs: Sequence[Array], operands: Operands) -> tuple[Array, ...]:
        """See ``compute``."""
        if self.meaning is None:
            return tuple(np.zeros(shape, dtype=np.float32) for shape in self.shapes)
        made = self.meaning(self.operator, inputs, operands)
        for index, (shape, array) in enumerate(zip(self.shapes, made, strict=True)):
            if array.shape != shape:
                op, name = self.operator, self.operator.outputs[index].name
                raise InvariantError(f"operator {op.name} made {name} of shape {array.shape}, not {shape}")
        return tuple([array if array.dtype == FLOAT32 else array.astype(FLOAT32) for array in made])


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
    "convolution": images.convolution,
    "transposed_convolution": images.transposed_convolution,
    "max_pool": images.max_pool,
    "average_pool": images.average_pool,
    "plane_statistics": images.plane_statistics,
    "normalise_planes": images.normalise_planes,
    "standardise": images.standardise,
    "leaky_relu": images.leaky_relu,
    "concatenation": images.concatenation,
    "bilinear": images.bilinear,
    "to_patches": windows.to_patches,
    "image_positions": windows.image_positions,
    "to_windows": windows.to_windows,
    "from_windows": windows.from_windows,
    "relative_positions": windows.relative_positions,
    "relative_add": windows.relative_add,
    "window_scores": windows.scores,
    "window_softmax": windows.softmax,
    "window_values": windows.values,
    "exponentials": learning.exponentials,
    "loss_gradient": learning.loss_gradient,
    "adam": learning.adam,
}
