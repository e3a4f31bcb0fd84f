"""The Llama family as an operator graph: grouped-query attention, rotary positions, gated FFN, RMS norms.

Tensor parallelism as in Megatron: heads and FFN columns are split (in uneven ranges where they do not divide),
a KV head is held by every socket whose query heads use it, norms are replicated, the vocabulary is split.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.dataflow.graph import Block, Graph, Operator, share
from node.dataflow.operators import (
    ELEMENT_BYTES,
    activation,
    attention_scores,
    attention_values,
    collective,
    elementwise,
    gather,
    gemm,
    kv_append,
    rms_norm,
    softmax,
)
from node.models.shape import Shape


@dataclass(frozen=True, slots=True)
class Shard:
    """What one socket of a tensor-parallel group holds of each layer, in elements."""

    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int

    @classmethod
    def of(cls, shape: Shape, degree: int, rank: int) -> Shard:
        """The shard of ``rank`` among ``degree`` sockets."""
        heads = share(shape.heads, degree, rank)
        group = shape.heads // shape.kv_heads
        kv_heads = len({head // group for head in heads})
        ffn, vocabulary = share(shape.ffn, degree, rank), share(shape.vocabulary, degree, rank)
        return cls(len(heads), kv_heads, len(ffn), len(vocabulary))


def llama(shape: Shape, degree: int = 1, rank: int = 0, weight_bytes: float = ELEMENT_BYTES) -> Graph:
    """The graph of one socket's shard; ``weight_bytes`` is the size of one weight element."""
    shard = Shard.of(shape, degree, rank)
    layer = Block("layer", (*_attention(shape, shard, degree, weight_bytes), *_ffn(shape, shard, degree, weight_bytes)))
    return Graph(
        name=shape.name,
        blocks=(
            Block("embedding", _embedding(shape, shard, degree, weight_bytes)),
            Block("layer", layer.operators, shape.layers),
            Block("head", _head(shape, shard, degree, weight_bytes)),
        ),
        kv_bytes_per_token=2 * shape.layers * shard.kv_heads * shape.head_dim * ELEMENT_BYTES,
        window=shape.sliding_window,
    )


def _embedding(shape: Shape, shard: Shard, degree: int, weight_bytes: float) -> tuple[Operator, ...]:
    rows = activation("embedded", shape.hidden)
    table = gather(
        "embedding",
        rows,
        rows=shard.vocabulary,
        columns=shape.hidden,
        width=shape.hidden,
        weight_bytes=weight_bytes,
    )
    return (table, *_reduced("embedding", rows.name, shape.hidden, degree))


def _reduced(name: str, partial: str, width: int, degree: int) -> tuple[Operator, ...]:
    """The all-reduce of partial sums; on one socket there is nothing to reduce."""
    if degree == 1:
        return ()
    return (
        collective(f"{name}_all_reduce", "all_reduce", activation(partial, width), activation(f"{name}_sum", width)),
    )


def _attention(shape: Shape, shard: Shard, degree: int, weight_bytes: float) -> tuple[Operator, ...]:
    width, kv_width = shard.heads * shape.head_dim, shard.kv_heads * shape.head_dim
    x, normed = activation("hidden", shape.hidden), activation("attention_input", shape.hidden)
    q, k, v = activation("q", width), activation("k", kv_width), activation("v", kv_width)
    q_rotated, k_rotated = activation("q_rotated", width), activation("k_rotated", kv_width)
    scores = activation("scores", shard.heads, per="pairs")
    probabilities = activation("probabilities", shard.heads, per="pairs")
    attended, projected = activation("attended", width), activation("attention_partial", shape.hidden)
    reduced = _reduced("attention", projected.name, shape.hidden, degree)
    added = reduced[-1].outputs[0] if reduced else projected
    heads = {"heads": shard.heads, "kv_heads": shard.kv_heads, "head_dim": shape.head_dim}
    return (
        rms_norm("attention_norm", x, normed, width=shape.hidden, weight_bytes=weight_bytes),
        gemm("q_proj", normed, q, rows=shape.hidden, columns=width, weight_bytes=weight_bytes),
        gemm("k_proj", normed, k, rows=shape.hidden, columns=kv_width, weight_bytes=weight_bytes),
        gemm("v_proj", normed, v, rows=shape.hidden, columns=kv_width, weight_bytes=weight_bytes),
        elementwise("rotary", (q, k), (q_rotated, k_rotated), flops=3 * (width + kv_width)),
        kv_append(k_rotated, v),
        attention_scores(q_rotated, scores, **heads),
        softmax(scores, probabilities, heads=shard.heads),
        attention_values(probabilities, attended, **heads),
        gemm("o_proj", attended, projected, rows=width, columns=shape.hidden, weight_bytes=weight_bytes),
        *reduced,
        elementwise("attention_add", (x, added), (activation("residual", shape.hidden),), flops=shape.hidden),
    )


def _ffn(shape: Shape, shard: Shard, degree: int, weight_bytes: float) -> tuple[Operator, ...]:
    x, normed = activation("residual", shape.hidden), activation("ffn_input", shape.hidden)
    gate, up = activation("gate", shard.ffn), activation("up", shard.ffn)
    activated, gated = activation("activated", shard.ffn), activation("gated", shard.ffn)
    down = activation("ffn_partial", shape.hidden)
    reduced = _reduced("ffn", down.name, shape.hidden, degree)
    added = reduced[-1].outputs[0] if reduced else down
    return (
        rms_norm("ffn_norm", x, normed, width=shape.hidden, weight_bytes=weight_bytes),
        gemm("gate_proj", normed, gate, rows=shape.hidden, columns=shard.ffn, weight_bytes=weight_bytes),
        gemm("up_proj", normed, up, rows=shape.hidden, columns=shard.ffn, weight_bytes=weight_bytes),
        elementwise("silu", (gate,), (activated,), flops=4 * shard.ffn),
        elementwise("multiply", (activated, up), (gated,), flops=shard.ffn),
        gemm("down_proj", gated, down, rows=shard.ffn, columns=shape.hidden, weight_bytes=weight_bytes),
        *reduced,
        elementwise("ffn_add", (x, added), (activation("layer_output", shape.hidden),), flops=shape.hidden),
    )


def _head(shape: Shape, shard: Shard, degree: int, weight_bytes: float) -> tuple[Operator, ...]:
    x, normed = (
        activation("last_hidden", shape.hidden, per="sequences"),
        activation("normed", shape.hidden, "sequences"),
    )
    logits = activation("logits", shard.vocabulary, per="sequences")
    head = gemm("lm_head", normed, logits, rows=shape.hidden, columns=shard.vocabulary, weight_bytes=weight_bytes)
    if shape.tied_embeddings:  # the embedding table serves as head: read again, stored once
        head = Operator(head.name, head.kind, head.inputs, head.outputs, flops=head.flops, weight_read=head.weight_read)
    norm = rms_norm("final_norm", x, normed, width=shape.hidden, weight_bytes=weight_bytes)
    gathered = activation("all_logits", shape.vocabulary, per="sequences")
    gather_logits = (collective("logits_all_gather", "all_gather", logits, gathered),) if degree > 1 else ()
    return (norm, head, *gather_logits)
