"""Operators by kind: FLOPs and bytes from shapes. Activations and KV cache are 2 bytes an element (BF16)."""

from __future__ import annotations

from node.dataflow.graph import ZERO, Form, Operator, Tensor

ELEMENT_BYTES = 2


def activation(name: str, width: int, per: str = "tokens") -> Tensor:
    """An activation of ``width`` elements per token, per sequence or per (query, key) pair."""
    return Tensor(name, Form(**{per: width * ELEMENT_BYTES}))


def gemm(name: str, source: Tensor, result: Tensor, *, rows: int, columns: int, weight_bytes: float) -> Operator:
    """``source`` (.. x rows) times a weight matrix (rows x columns): 2 x rows x columns FLOPs per row of input.

    ``weight_bytes``: bytes per weight element. The rows of input are those that ``result`` is counted in.
    """
    size = round(rows * columns * weight_bytes)
    per_sequence = result.size.sequences > 0
    work = 2 * rows * columns
    flops = Form(sequences=work) if per_sequence else Form(tokens=work)
    return Operator(name, "gemm", (source,), (result,), flops=flops, weights=size, weight_read=Form(constant=size))


def gather(name: str, result: Tensor, *, rows: int, columns: int, width: int, weight_bytes: float) -> Operator:
    """Embedding: a table of rows x columns, one row of ``width`` read per token."""
    size = round(rows * columns * weight_bytes)
    return Operator(name, "gather", (), (result,), weights=size, weight_read=Form(tokens=round(width * weight_bytes)))


def rms_norm(name: str, source: Tensor, result: Tensor, *, width: int, weight_bytes: float) -> Operator:
    """Root-mean-square norm: square, sum, scale, multiply: 4 FLOPs an element."""
    size = round(width * weight_bytes)
    work = 4 * width
    flops = Form(sequences=work) if result.size.sequences else Form(tokens=work)
    return Operator(name, "rowwise", (source,), (result,), flops=flops, weights=size, weight_read=Form(constant=size))


def elementwise(name: str, sources: tuple[Tensor, ...], results: tuple[Tensor, ...], *, flops: int) -> Operator:
    """``flops`` per token over the operator's whole width."""
    return Operator(name, "elementwise", sources, results, flops=Form(tokens=flops))


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


def softmax(scores: Tensor, probabilities: Tensor, *, heads: int) -> Operator:
    """Maximum, subtract, exponential, sum, divide: 5 FLOPs per head and pair."""
    return Operator("softmax", "attention", (scores,), (probabilities,), flops=Form(pairs=5 * heads))


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
