"""The backward of attention: of scores, softmax and values."""

from __future__ import annotations

from node.dataflow.form import Form
from node.dataflow.gradient import Backward, term
from node.dataflow.graph import Operator, Tensor


def product(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """S = Q K^T: dQ = dS K and dK = dS^T Q. O = P V: dP = dO V^T and dV = P^T dO. Each as many FLOPs as forward."""
    left, right = op.inputs
    keys, width = Form(context=op.groups.sequences), Form(sequences=right.shape[0])
    results = term(left, op), term(right, op)
    of_left = Operator(
        f"{op.name}_{left.name}_gradient",
        "attention",
        (*gradients, right),
        results[:1],
        flops=op.flops,
        mode="systolic",
        rows=op.rows,
        columns=width if op.function == "scores" else keys,
        groups=op.groups,
        function=f"{op.function}_left",
        attributes=op.attributes,
    )
    of_right = Operator(
        f"{op.name}_{right.name}_gradient",
        "attention",
        (left, *gradients),
        results[1:],
        flops=op.flops,
        mode="systolic",
        rows=keys,
        columns=width,
        groups=op.groups,
        function=f"{op.function}_right",
        attributes=op.attributes,
    )
    return Backward((of_left, of_right), results)


def softmax(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """dS = P (dP - sum(dP P)): multiply, sum, subtract, multiply: 4 FLOPs an element, taken twice. From P as kept."""
    result = term(op.inputs[0], op)
    flops = result.elements * 4
    made = Operator(
        f"{op.name}_gradient",
        "attention",
        (*op.outputs, *gradients),
        (result,),
        flops=flops,
        passes=2,
        function="softmax_gradient",
    )
    return Backward((made,), (result,))
