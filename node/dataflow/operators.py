"""Operators by kind: FLOPs, bytes and parallel parts from shapes. Activations and KV cache are BF16."""

from __future__ import annotations

from node.dataflow.attributes import Heads, Norm, Rotary, Rows
from node.dataflow.form import ZERO, Form, total
from node.dataflow.graph import DTYPES, Operator, Tensor
from node.dataflow.matrix import Matrix

ELEMENT_BYTES = DTYPES["bf16"]
ONE = Form(constant=1)


def activation(name: str, width: int, per: str = "tokens") -> Tensor:
    """An activation of ``width`` elements per token, per sequence or per (query, key) pair.

    What an image tower makes is counted per sequence, each with one image: ``width`` is then that of all its rows.
    """
    return Tensor(name, per, (width,))


def gemm(name: str, source: Tensor, result: Tensor, matrix: Matrix, each: int = 1) -> Operator:
    """``source`` (.. x rows) times ``matrix``: 2 x rows x columns FLOPs per row of input, a column more for a bias.

    ``each``: rows of input per token or sequence, whichever ``result`` is counted in.
    """
    return Operator(
        name,
        "gemm",
        (source,),
        (result,),
        flops=_per_row(result, each * (2 * matrix.rows * matrix.density + matrix.bias) * matrix.columns),
        mode="systolic",
        rows=_per_row(result, each),
        columns=ONE * matrix.columns,
        groups=ONE,
        weights=matrix.size,
        weight_read=Form(constant=matrix.size),
        matrix=matrix,
    )


def _per_row(result: Tensor, work: float) -> Form:
    """``work`` for each of what ``result`` is counted in."""
    return Form(**{result.per: work})


def gather(name: str, result: Tensor, table: Matrix, first: int = 0) -> Operator:
    """Embedding: of ``table``, which begins with row ``first``, one row read per token, by address."""
    return Operator(
        name,
        "gather",
        (),
        (result,),
        mode="memory",
        weights=table.size,
        weight_read=Form(tokens=round(table.columns * table.element_bytes)),
        matrix=table,
        attributes=Rows(first),
    )


def learned_positions(source: Tensor, result: Tensor, table: Matrix) -> Operator:
    """To each token's embedding the row of ``table`` for its place in the sequence is added, one FLOP an element."""
    read = Form(tokens=round(table.columns * table.element_bytes))
    return Operator(
        "positions",
        "elementwise",
        (source,),
        (result,),
        flops=source.elements,
        weights=table.size,
        weight_read=read,
        matrix=table,
        function="positions",
    )


def norm(
    name: str,
    source: Tensor,
    result: Tensor,
    of: Norm,
    *,
    weight_bytes: float,
    layer_norm: bool = False,
    each: int = 1,
) -> Operator:
    """A norm ``of`` the elements of ``each`` rows per token or sequence, read twice: statistics, then scaling.

    RMS: square, sum, scale, multiply: 4 FLOPs an element, one weight. Layer norm: also mean, subtract, shift: 7 FLOPs
    an element, weight and bias.
    """
    matrix = Matrix(2 if layer_norm else 1, of.width, weight_bytes)
    return Operator(
        name,
        "rowwise",
        (source,),
        (result,),
        flops=_per_row(result, each * (7 if layer_norm else 4) * of.width),
        passes=2,
        weights=matrix.size,
        weight_read=Form(constant=matrix.size),
        matrix=matrix,
        function="layer_norm" if layer_norm else "rms_norm",
        attributes=of,
    )


def elementwise(
    name: str, sources: tuple[Tensor, ...], results: tuple[Tensor, ...], *, flops: int, function: str = ""
) -> Operator:
    """``flops`` per row (token or sequence) over the operator's whole width."""
    return Operator(name, "elementwise", sources, results, flops=_per_row(results[0], flops), function=function)


# FLOPs an element. silu: negate, exp, add, divide. quick_gelu: a product more. gelu: three products and a sum to x^3's
# term, tanh, a sum, two products. gelu_erf: divide, erf, add, two products.
ACTIVATIONS = {"silu": 4, "quick_gelu": 5, "gelu": 8, "gelu_erf": 5}


def activation_function(name: str, source: Tensor, result: Tensor, function: str) -> Operator:
    """One of ``ACTIVATIONS`` of each element."""
    flops = source.elements * ACTIVATIONS[function]
    return Operator(name, "elementwise", (source,), (result,), flops=flops, function=function)


def rotary(sources: tuple[Tensor, Tensor], results: tuple[Tensor, Tensor], attributes: Rotary) -> Operator:
    """Queries and keys turned by position: two products and a sum an element."""
    flops = total(tensor.elements for tensor in results) * 3
    return Operator("rotary", "elementwise", sources, results, flops=flops, function="rotary", attributes=attributes)


def attention_scores(query: Tensor, scores: Tensor, heads: Heads) -> Operator:
    """Q K^T over the K cache: 2 x (elements of a head) FLOPs per head and pair; reads K once per pass.

    K is read transposed, which its buffer's access pattern does.
    """
    return Operator(
        "scores",
        "attention",
        (query,),
        (scores,),
        flops=Form(pairs=2 * len(heads.kv) * heads.dim),
        mode="systolic",
        rows=Form(tokens=len(heads.kv)),
        columns=Form(context=heads.kv_heads),
        groups=Form(sequences=heads.kv_heads),
        function="scores",
        kv_read=Form(context=heads.kv_heads * heads.dim * ELEMENT_BYTES),
        attributes=heads,
    )


def softmax(scores: Tensor, probabilities: Tensor, heads: Heads) -> Operator:
    """Maximum, subtract, exponential, sum, divide: 5 FLOPs per head and pair; with ALiBi one more, its bias.

    Each element is taken three times: for the maximum, for the sum, for the quotient.
    """
    flops = scores.elements * (5 + bool(heads.slopes))
    return Operator(
        "softmax",
        "attention",
        (scores,),
        (probabilities,),
        flops=flops,
        passes=3,
        function="softmax",
        attributes=heads,
    )


def attention_values(probabilities: Tensor, result: Tensor, heads: Heads) -> Operator:
    """Probabilities times V: 2 x (elements of a head) FLOPs per head and pair; reads V once per pass."""
    return Operator(
        "values",
        "attention",
        (probabilities,),
        (result,),
        flops=Form(pairs=2 * len(heads.kv) * heads.dim),
        mode="systolic",
        rows=Form(tokens=len(heads.kv)),
        columns=Form(sequences=heads.kv_heads * heads.dim),
        groups=Form(sequences=heads.kv_heads),
        function="values",
        kv_read=Form(context=heads.kv_heads * heads.dim * ELEMENT_BYTES),
        attributes=heads,
    )


def kv_append(key: Tensor, value: Tensor) -> Operator:
    """New keys and values written to the KV cache, by address."""
    written = key.size + value.size
    return Operator("kv_append", "elementwise", (key, value), (), mode="memory", kv_write=written, function="append")


def collective(name: str, kind: str, source: Tensor, result: Tensor) -> Operator:
    """``kind`` is all_reduce or all_gather; each member brings ``source``; a reduction adds one FLOP an element."""
    reduces = kind == "all_reduce"
    return Operator(
        name,
        "collective",
        (source,),
        (result,),
        flops=source.elements if reduces else ZERO,
        mode="simd" if reduces else "memory",
        message=source.size,
        collective=kind,
    )
