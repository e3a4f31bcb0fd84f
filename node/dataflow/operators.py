"""Operators by kind: FLOPs and bytes from shapes. Activations and KV cache are 2 bytes an element (BF16)."""

from __future__ import annotations

from dataclasses import dataclass

from node.dataflow.graph import ZERO, Form, Operator, Tensor
from node.units import Bytes

ELEMENT_BYTES = 2


def activation(name: str, width: int, per: str = "tokens") -> Tensor:
    """An activation of ``width`` elements per token, per sequence or per (query, key) pair.

    What an image tower makes is counted per sequence, each with one image: ``width`` is then that of all its rows.
    """
    return Tensor(name, Form(**{per: width * ELEMENT_BYTES}))


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights of a linear layer: rows x columns elements of ``element_bytes``, with a ``bias`` one row more."""

    rows: int
    columns: int
    element_bytes: float
    bias: bool = False

    @property
    def size(self) -> Bytes:
        """Bytes."""
        return round((self.rows + self.bias) * self.columns * self.element_bytes)


def gemm(name: str, source: Tensor, result: Tensor, matrix: Matrix, each: int = 1) -> Operator:
    """``source`` (.. x rows) times ``matrix``: 2 x rows x columns FLOPs per row of input, a column more for a bias.

    ``each``: rows of input per token or sequence, whichever ``result`` is counted in.
    """
    flops = _per_row(result, each * (2 * matrix.rows + matrix.bias) * matrix.columns)
    read = Form(constant=matrix.size)
    return Operator(name, "gemm", (source,), (result,), flops=flops, weights=matrix.size, weight_read=read)


def _per_row(result: Tensor, work: float) -> Form:
    """``work`` for each token or sequence, whichever ``result`` is counted in."""
    return Form(sequences=work) if result.size.sequences else Form(tokens=work)


def gather(name: str, result: Tensor, table: Matrix, width: int) -> Operator:
    """Embedding: of ``table`` one row of ``width`` elements read per token."""
    read = Form(tokens=round(width * table.element_bytes))
    return Operator(name, "gather", (), (result,), weights=table.size, weight_read=read)


def norm(
    name: str,
    source: Tensor,
    result: Tensor,
    *,
    width: int,
    weight_bytes: float,
    layer_norm: bool = False,
    each: int = 1,
) -> Operator:
    """A norm over ``width`` elements of ``each`` rows per token or sequence.

    RMS: square, sum, scale, multiply: 4 FLOPs an element, one weight. Layer norm: also mean, subtract, shift: 7 FLOPs
    an element, weight and bias.
    """
    size = round(width * (2 if layer_norm else 1) * weight_bytes)
    flops = _per_row(result, each * (7 if layer_norm else 4) * width)
    return Operator(name, "rowwise", (source,), (result,), flops=flops, weights=size, weight_read=Form(constant=size))


def elementwise(name: str, sources: tuple[Tensor, ...], results: tuple[Tensor, ...], *, flops: int) -> Operator:
    """``flops`` per row (token or sequence) over the operator's whole width."""
    return Operator(name, "elementwise", sources, results, flops=_per_row(results[0], flops))


def attention_scores(query: Tensor, scores: Tensor, *, heads: int, kv_heads: int, head_dim: int) -> Operator:
    """Q K^T over the K cache: 2 x head_dim FLOPs per head and pair; reads K once per pass."""
    return Operator(
        "scores",
        "attention",
        (query,),
        (scores,),
        flops=Form(pairs=2 * heads * head_dim),
        kv_read=Form(context=kv_heads * head_dim * ELEMENT_BYTES),
    )


def softmax(scores: Tensor, probabilities: Tensor, *, heads: int, alibi: bool = False) -> Operator:
    """Maximum, subtract, exponential, sum, divide: 5 FLOPs per head and pair; with ALiBi one more, its bias."""
    flops = Form(pairs=(5 + alibi) * heads)
    return Operator("softmax", "attention", (scores,), (probabilities,), flops=flops)


def attention_values(probabilities: Tensor, result: Tensor, *, heads: int, kv_heads: int, head_dim: int) -> Operator:
    """Probabilities times V: 2 x head_dim FLOPs per head and pair; reads V once per pass."""
    return Operator(
        "values",
        "attention",
        (probabilities,),
        (result,),
        flops=Form(pairs=2 * heads * head_dim),
        kv_read=Form(context=kv_heads * head_dim * ELEMENT_BYTES),
    )


def kv_append(key: Tensor, value: Tensor) -> Operator:
    """New keys and values written to the KV cache."""
    return Operator("kv_append", "elementwise", (key, value), (), kv_write=key.size + value.size)


def collective(name: str, kind: str, source: Tensor, result: Tensor) -> Operator:
    """``kind`` is all_reduce or all_gather; each member brings ``source``."""
    flops = Form(tokens=source.size.tokens / ELEMENT_BYTES) if kind == "all_reduce" else ZERO
    return Operator(name, "collective", (source,), (result,), flops=flops, message=source.size, collective=kind)
