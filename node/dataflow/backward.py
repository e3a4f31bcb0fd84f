"""The backward of each kind of operator: from the gradients of its results those of its inputs and of its weights.

Gradients are BF16. A gradient of weights is a tensor per ``constant``, of a sparse matrix one element per non-zero, and
is summed over all tokens before it leaves its kernel. FLOPs count one per addition, multiplication or transcendental.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from node.dataflow.backward_attention import product, softmax
from node.dataflow.form import Form, total
from node.dataflow.gradient import Backward, term, weight_gradient
from node.dataflow.graph import Operator, Tensor
from node.dataflow.operators import ONE

Rule = Callable[[Operator, tuple[Tensor, ...]], Backward]


def backward(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """The backward of ``op``, whose outputs have ``gradients``; raises ``ValueError`` where no rule is known."""
    if op.meaning not in RULES:
        raise ValueError(f"operator {op.name}: {op.meaning} has no gradient; these have: {', '.join(RULES)}")
    return RULES[op.meaning](op, gradients)


def _gemm(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """Y = X W + b: dX = dY W^T and dW = X^T dY, each as many FLOPs as Y; db, the sum of dY, is made along with dW.

    Of sparse weights dW is made only where W is not zero; reading where that is takes their indices. Where Y = X W^T
    with a table W that is another operator's too, dX = dY W and dW = dY^T X.
    """
    assert op.matrix is not None
    (source,), matrix, tied = op.inputs, op.matrix, op.function == "transposed"
    result, of = term(source, op), op.weights_of or op.name
    back = replace(matrix, rows=matrix.columns, columns=matrix.rows, bias=False)
    of_input = Operator(
        f"{op.name}_input_gradient",
        "gemm",
        gradients,
        (result,),
        flops=op.rows * (2 * matrix.non_zeros),
        mode="systolic",
        rows=op.rows,
        columns=ONE * matrix.rows,
        groups=ONE,
        weight_read=Form(constant=back.size),
        matrix=back,
        function="gemm" if tied else "transposed",
        weights_of=of,
    )
    of_weights = Operator(
        f"{op.name}_weight_gradient",
        "gemm",
        (*gradients, source) if tied else (source, *gradients),
        (weight_gradient(op),),
        flops=op.flops,
        mode="systolic",
        rows=ONE * matrix.rows,
        columns=ONE * matrix.columns,
        groups=ONE,
        weight_read=Form(constant=round(matrix.non_zeros * matrix.index_bytes)),
        matrix=back if tied else matrix,
        function="weight_gradient",
        weights_of=of,
    )
    return Backward((of_input, of_weights), (result,))


def _norm(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """With x' = x r the normed input and g = dY w: dX = r (g - x' mean(g x')), of layer norms also less mean(g).

    Statistics are worked out again from x. FLOPs an element, RMS: square, sum; x'; g; product and sum; three for dX;
    two for dW: 11. Layer norm: also mean and its subtraction, sum of g and its subtraction, the sum for the bias: 16.
    Each element is taken three times: for the statistics, for the sums, for the result.
    """
    assert op.matrix is not None
    result = term(op.inputs[0], op)
    made = Operator(
        f"{op.name}_gradient",
        "rowwise",
        (*op.inputs, *gradients),
        (result, weight_gradient(op)),
        flops=result.elements * (16 if op.function == "layer_norm" else 11),
        passes=3,
        weight_read=Form(constant=round(op.matrix.columns * op.matrix.element_bytes)),
        function=f"{op.function}_gradient",
        weights_of=op.name,
        attributes=op.attributes,
    )
    return Backward((made,), (result,))


# FLOPs per element of the result, and whether the inputs of the forward operator are read. multiply: two products.
# silu, s = sigmoid(x): exp, add, divide, then dY s (1 + x (1 - s)). gelu by tanh: 6 to tanh, 10 to the slope, times dY.
# gelu_erf: 4 to the probability, square, exp, 3 to the slope, times dY. rotary: the rotation back, by position alone.
POINTWISE = {
    "multiply": (2, True),
    "silu": (8, True),
    "gelu": (17, True),
    "gelu_erf": (10, True),
    "rotary": (3, False),
}


def _pointwise(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """One operator that makes the gradients of all inputs; see ``POINTWISE``."""
    flops, reads = POINTWISE[op.function]
    results = tuple(term(tensor, op) for tensor in op.inputs)
    work = total(tensor.elements for tensor in op.outputs) * flops
    sources = (*gradients, *op.inputs) if reads else gradients
    made = Operator(
        f"{op.name}_gradient",
        "elementwise",
        sources,
        results,
        flops=work,
        function=f"{op.function}_gradient",
        attributes=op.attributes,
    )
    return Backward((made,), results)


def _passed_on(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """A sum, of two tensors or of the shards' parts: its gradient is that of each term."""
    return Backward((), gradients * len(op.inputs))


def _table(op: Operator, gradients: tuple[Tensor, ...]) -> Backward:
    """Of a table the rows that were read: each token's gradient is added to its own. The whole gradient is written."""
    flops = total(tensor.elements for tensor in gradients)
    made = Operator(
        f"{op.name}_weight_gradient",
        "gather",
        gradients,
        (weight_gradient(op),),
        flops=flops,
        function=f"{op.meaning}_gradient",
        weights_of=op.name,
        attributes=op.attributes,
    )
    return Backward((made,), gradients if op.inputs else ())


RULES: dict[str, Rule] = {
    "gemm": _gemm,
    "transposed": _gemm,
    "scores": product,
    "softmax": softmax,
    "values": product,
    "rms_norm": _norm,
    "layer_norm": _norm,
    "multiply": _pointwise,
    "silu": _pointwise,
    "gelu": _pointwise,
    "gelu_erf": _pointwise,
    "rotary": _pointwise,
    "add": _passed_on,
    "all_reduce": _passed_on,
    "gather": _table,
    "positions": _table,
}
