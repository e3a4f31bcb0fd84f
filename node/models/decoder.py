"""Decoder models as operator graphs: Llama, Mistral, Falcon, BLOOM, GPT. ``family`` says what tells them apart.

Tensor parallelism as in Megatron: heads and FFN columns are split (in uneven ranges where they do not divide),
a KV head is held by every socket whose query heads use it, norms are replicated, the vocabulary is split,
learned positions are held by every socket.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from node.dataflow.attributes import Norm, Rotary, Rows
from node.dataflow.graph import Block, Graph, Operator, Tensor, share
from node.dataflow.matrix import Matrix
from node.dataflow.operators import (
    ELEMENT_BYTES,
    activation,
    activation_function,
    attention_scores,
    attention_values,
    collective,
    elementwise,
    gather,
    gemm,
    kv_append,
    learned_positions,
    norm,
    rotary,
    softmax,
)
from node.models.shape import Shape
from node.models.shard import Shard, query_heads
from node.models.vision import image_tokens, vision_tower


def decoder(shape: Shape, degree: int = 1, rank: int = 0, weight_bytes: float = ELEMENT_BYTES) -> Graph:
    """The graph of one socket's shard; ``weight_bytes`` is the size of one weight element."""
    build = _Builder(shape, Shard.of(shape, degree, rank), degree, rank, weight_bytes)
    tower = vision_tower(shape, degree, rank, weight_bytes) if shape.vision else ()
    embedding = build.embedding()
    return Graph(
        name=shape.name,
        blocks=(
            *tower,
            Block("embedding", embedding),
            *((image_tokens(shape.vision, embedding[-1].outputs[0]),) if shape.vision else ()),
            Block("layer", build.layer(), shape.layers),
            Block("head", build.head()),
        ),
        kv_bytes_per_token=2 * shape.layers * build.shard.kv_heads * shape.head_dim * ELEMENT_BYTES,
        window=shape.sliding_window,
        context=shape.context if shape.sliding_window is None else min(shape.context, shape.sliding_window),
    )


@dataclass(frozen=True, slots=True)
class _Builder:
    """The operators of one shard, block by block."""

    shape: Shape
    shard: Shard
    degree: int
    rank: int
    weight_bytes: float

    def embedding(self) -> tuple[Operator, ...]:
        """The shard of the table, the sum over shards, in some families learned positions or a norm."""
        rows, width = activation("embedded", self.shape.hidden), self.shape.hidden
        table = gather("embedding", rows, Matrix(self.shard.vocabulary, width, self.weight_bytes), self._first_word)
        summed, last = self._summed("embedding", rows)
        if self.shape.traits.positions == "learned":
            positions = Matrix(self.shape.context, width, self.weight_bytes)
            return (table, *summed, learned_positions(last, activation("placed", width), positions))
        if self.shape.traits.embedding_norm:
            return (table, *summed, self._norm("embedding_norm", last, activation("embedding_normed", width)))
        return (table, *summed)

    def layer(self) -> tuple[Operator, ...]:
        """A decoder layer: attention, then FFN; or both from the same input."""
        x = activation("hidden", self.shape.hidden)
        if self.shape.traits.parallel:
            return self._parallel(x)
        residual, output = (activation(name, self.shape.hidden) for name in ("residual", "layer_output"))
        attention, attended = self._attention(x, "attention_norm")
        summed, total = self._summed("attention", attended)
        ffn, made = self._ffn(residual, "ffn_norm")
        ffn_summed, ffn_total = self._summed("ffn", made)
        return (
            *attention,
            *summed,
            elementwise("attention_add", (x, total), (residual,), flops=self.shape.hidden, function="add"),
            *ffn,
            *ffn_summed,
            elementwise("ffn_add", (residual, ffn_total), (output,), flops=self.shape.hidden, function="add"),
        )

    def head(self) -> tuple[Operator, ...]:
        """The last norm and the logits, of the last token of each sequence."""
        shape = self.shape
        x, normed = (activation(name, shape.hidden, per="sequences") for name in ("last_hidden", "normed"))
        logits = activation("logits", self.shard.vocabulary, per="sequences")
        head = gemm("lm_head", normed, logits, Matrix(shape.hidden, self.shard.vocabulary, self.weight_bytes))
        head = replace(head, attributes=Rows(self._first_word))
        if shape.tied_embeddings:  # the embedding table serves as head: read again, stored once
            head = replace(head, weights=0, function="transposed", weights_of="embedding")
        gathered = activation("all_logits", shape.vocabulary, per="sequences")
        gather_logits = (collective("logits_all_gather", "all_gather", logits, gathered),) if self.degree > 1 else ()
        return (self._norm("final_norm", x, normed), head, *gather_logits)

    def _parallel(self, x: Tensor) -> tuple[Operator, ...]:
        attention, attended = self._attention(x, "attention_norm")
        if self.shape.traits.two_norms:
            ffn, made = self._ffn(x, "ffn_norm")
        else:
            ffn, made = self._ffn(attention[0].outputs[0], None)
        both, output = (activation(name, self.shape.hidden) for name in ("both_partial", "layer_output"))
        summed, total = self._summed("layer", both)
        width = self.shape.hidden
        return (
            *attention,
            *ffn,
            elementwise("branch_add", (attended, made), (both,), flops=width, function="add"),
            *summed,
            elementwise("residual_add", (x, total), (output,), flops=width, function="add"),
        )

    def _attention(self, x: Tensor, norm_name: str) -> tuple[tuple[Operator, ...], Tensor]:
        """Attention up to the partial sums of its output projection."""
        shape, shard = self.shape, self.shard
        width, kv_width = shard.heads * shape.head_dim, shard.kv_heads * shape.head_dim
        normed = activation("attention_input", shape.hidden)
        q, k, v = activation("q", width), activation("k", kv_width), activation("v", kv_width)
        scores, probabilities = (activation(name, shard.heads, per="pairs") for name in ("scores", "probabilities"))
        attended, projected = activation("attended", width), activation("attention_partial", shape.hidden)
        heads = query_heads(shape, self.degree, self.rank)
        positions: tuple[Operator, ...] = ()
        query, key = q, k
        if shape.traits.positions == "rotary":
            query, key = activation("q_rotated", width), activation("k_rotated", kv_width)
            positions = (rotary((q, k), (query, key), Rotary(shape.head_dim, shape.rope)),)
        operators = (
            self._norm(norm_name, x, normed),
            self._gemm("q_proj", normed, q, shape.hidden, width),
            self._gemm("k_proj", normed, k, shape.hidden, kv_width),
            self._gemm("v_proj", normed, v, shape.hidden, kv_width),
            *positions,
            kv_append(key, v),
            attention_scores(query, scores, heads),
            softmax(scores, probabilities, heads),
            attention_values(probabilities, attended, heads),
            self._gemm("o_proj", attended, projected, width, shape.hidden),
        )
        return operators, projected

    def _ffn(self, x: Tensor, norm_name: str | None) -> tuple[tuple[Operator, ...], Tensor]:
        """The FFN up to the partial sums of its down projection; without a norm it reads ``x`` as it is."""
        hidden, ffn = self.shape.hidden, self.shard.ffn
        normed = x if norm_name is None else activation("ffn_input", hidden)
        norms = () if norm_name is None else (self._norm(norm_name, x, normed),)
        up, activated, down = activation("up", ffn), activation("activated", ffn), activation("ffn_partial", hidden)
        if self.shape.traits.gated:
            gate, gated = activation("gate", ffn), activation("gated", ffn)
            middle: tuple[Operator, ...] = (
                self._gemm("gate_proj", normed, gate, hidden, ffn),
                self._gemm("up_proj", normed, up, hidden, ffn),
                activation_function("silu", gate, activated, "silu"),
                elementwise("multiply", (activated, up), (gated,), flops=ffn, function="multiply"),
            )
        else:
            gated = activated
            gelu = activation_function("gelu", up, activated, self.shape.traits.gelu)
            middle = (self._gemm("up_proj", normed, up, hidden, ffn), gelu)
        return (*norms, *middle, self._gemm("down_proj", gated, down, ffn, hidden)), down

    def _summed(self, name: str, partial: Tensor) -> tuple[tuple[Operator, ...], Tensor]:
        """The all-reduce of partial sums and what it makes; on one socket there is nothing to reduce."""
        if self.degree == 1:
            return (), partial
        total = activation(f"{name}_sum", self.shape.hidden)
        return (collective(f"{name}_all_reduce", "all_reduce", partial, total),), total

    def _gemm(self, name: str, source: Tensor, result: Tensor, rows: int, columns: int) -> Operator:
        """A linear layer of attention or the FFN, as sparse as the model is."""
        shape = self.shape
        sizes = rows, columns, self.weight_bytes, shape.traits.bias, shape.density, shape.index_bytes
        return gemm(name, source, result, Matrix(*sizes))

    def _norm(self, name: str, source: Tensor, result: Tensor) -> Operator:
        return norm(
            name,
            source,
            result,
            Norm(self.shape.hidden, self.shape.norm_epsilon),
            weight_bytes=self.weight_bytes,
            layer_norm=self.shape.traits.layer_norm,
        )

    @property
    def _first_word(self) -> int:
        return share(self.shape.vocabulary, self.degree, self.rank).start
