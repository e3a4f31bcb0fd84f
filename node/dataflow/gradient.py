"""Gradients as tensors: of a tensor, of a term of it, of weights."""

from __future__ import annotations

from dataclasses import dataclass

from node.dataflow.graph import Operator, Tensor


@dataclass(frozen=True, slots=True)
class Backward:
    """The ``operators`` in order, and of each input of the forward operator the gradient that they make."""

    operators: tuple[Operator, ...]
    gradients: tuple[Tensor, ...]


def gradient_of(tensor: Tensor, which: str = "gradient") -> Tensor:
    """The gradient of a tensor, as large as it is."""
    return Tensor(f"{tensor.name}_{which}", tensor.per, tensor.shape)


def weight_gradient(op: Operator) -> Tensor:
    """The gradient of the weights that ``op`` uses."""
    assert op.matrix is not None
    return Tensor(f"{op.name}_weight_gradient", "constant", (op.matrix.elements,))


def term(tensor: Tensor, op: Operator) -> Tensor:
    """What ``op`` adds to the gradient of one of its inputs."""
    return Tensor(f"{tensor.name}_gradient_of_{op.name}", tensor.per, tensor.shape)
