"""A CLIP vision transformer and the projector that turns its patches into tokens of a language model (LLaVA 1.5).

It runs once per image, with the prompt: sizes are per sequence, each with one image. Heads and FFN columns are split
over the sockets as in the decoder; patch embedding, norms and projector are held by every socket.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from node.dataflow.graph import Block, Form, Operator, Tensor, share
from node.dataflow.matrix import Matrix
from node.dataflow.operators import activation, collective, elementwise, gemm, norm, softmax
from node.models.shape import VisionShape

CHANNELS = 3


def vision_tower(shape: VisionShape, hidden: int, degree: int, rank: int, weight_bytes: float) -> tuple[Block, ...]:
    """The blocks of the tower and of its projector to ``hidden`` elements a token."""
    build = _Tower(
        shape, len(share(shape.heads, degree, rank)), len(share(shape.ffn, degree, rank)), degree, weight_bytes
    )
    return (
        Block("patches", build.patches(), in_decode=False),
        Block("vision_layer", build.layer(), shape.layers, in_decode=False),
        Block("projector", build.projector(hidden), in_decode=False),
    )


@dataclass(frozen=True, slots=True)
class _Tower:
    shape: VisionShape
    heads: int
    ffn: int
    degree: int
    weight_bytes: float

    def patches(self) -> tuple[Operator, ...]:
        """The convolution over patches as a GEMM, class token and positions added, a norm."""
        shape, rows = self.shape, self.shape.positions
        pixels = self._rows("pixels", CHANNELS * shape.patch**2, shape.patches)
        embedded = self._rows("patch_embeddings", shape.hidden, shape.patches)
        placed, normed = self._rows("placed", shape.hidden), self._rows("vision_hidden", shape.hidden)
        learned = round((rows + 1) * shape.hidden * self.weight_bytes)  # a row per position, and the class token
        matrix = Matrix(CHANNELS * shape.patch**2, shape.hidden, self.weight_bytes)
        convolve = gemm("patch_embedding", pixels, embedded, matrix, each=shape.patches)
        place = Operator(
            "positions",
            "elementwise",
            (embedded,),
            (placed,),
            flops=Form(sequences=rows * shape.hidden),
            weights=learned,
            weight_read=Form(constant=learned),
        )
        return (convolve, place, self._norm("pre_norm", placed, normed))

    def layer(self) -> tuple[Operator, ...]:
        """Attention over all positions, FFN with GELU; layer norms, biases."""
        hidden, width = self.shape.hidden, self.heads * self.shape.head_dim
        x, normed = self._rows("vision_hidden", hidden), self._rows("vision_attention_input", hidden)
        q, k, v = (self._rows(name, width) for name in ("vision_q", "vision_k", "vision_v"))
        pairs = self.heads * self.shape.positions**2
        scores, probabilities = (
            activation("vision_scores", pairs, "sequences"),
            activation("vision_p", pairs, "sequences"),
        )
        attended, projected = self._rows("vision_attended", width), self._rows("vision_attention_partial", hidden)
        residual, ffn_input = self._rows("vision_residual", hidden), self._rows("vision_ffn_input", hidden)
        up, activated = self._rows("vision_up", self.ffn), self._rows("vision_activated", self.ffn)
        down, output = self._rows("vision_ffn_partial", hidden), self._rows("vision_output", hidden)
        attention_sum, attention_total = self._summed("vision_attention", projected)
        ffn_sum, ffn_total = self._summed("vision_ffn", down)
        return (
            self._norm("vision_attention_norm", x, normed),
            self._gemm("vision_q_proj", normed, q, hidden, width),
            self._gemm("vision_k_proj", normed, k, hidden, width),
            self._gemm("vision_v_proj", normed, v, hidden, width),
            self._product("vision_scores", (q, k), scores, self.shape.positions),
            replace(softmax(scores, probabilities, heads=self.heads), name="vision_softmax", flops=scores.elements * 5),
            self._product("vision_values", (probabilities, v), attended, self.shape.head_dim),
            self._gemm("vision_o_proj", attended, projected, width, hidden),
            *attention_sum,
            elementwise("vision_attention_add", (x, attention_total), (residual,), flops=self.shape.positions * hidden),
            self._norm("vision_ffn_norm", residual, ffn_input),
            self._gemm("vision_up_proj", ffn_input, up, hidden, self.ffn),
            elementwise("vision_gelu", (up,), (activated,), flops=8 * self.shape.positions * self.ffn),
            self._gemm("vision_down_proj", activated, down, self.ffn, hidden),
            *ffn_sum,
            elementwise("vision_ffn_add", (residual, ffn_total), (output,), flops=self.shape.positions * hidden),
        )

    def projector(self, hidden: int) -> tuple[Operator, ...]:
        """A last norm (of the class token, kept for its weights), two linear layers with a GELU between."""
        shape = self.shape
        x, normed = self._rows("vision_hidden", shape.hidden), self._rows("vision_normed", shape.hidden)
        first, activated, tokens = (
            self._rows(n, hidden, shape.patches) for n in ("projected", "projected_gelu", "image")
        )
        return (
            self._norm("post_norm", x, normed),
            self._gemm("projector_1", x, first, shape.hidden, hidden, shape.patches),
            elementwise("projector_gelu", (first,), (activated,), flops=8 * shape.patches * hidden),
            self._gemm("projector_2", activated, tokens, hidden, hidden, shape.patches),
        )

    def _product(self, name: str, sources: tuple[Tensor, ...], result: Tensor, columns: int) -> Operator:
        """Scores or values of each head over all positions of an image; each needs the whole image's keys or values."""
        positions = self.shape.positions
        return Operator(
            name,
            "attention",
            sources,
            (result,),
            flops=Form(sequences=2 * self.heads * positions**2 * self.shape.head_dim),
            mode="systolic",
            rows=Form(sequences=self.heads * positions),
            columns=Form(sequences=self.heads * columns),
            groups=Form(sequences=self.heads),
            whole=True,
        )

    def _rows(self, name: str, width: int, rows: int | None = None) -> Tensor:
        return activation(name, width * (rows or self.shape.positions), "sequences")

    def _summed(self, name: str, partial: Tensor) -> tuple[tuple[Operator, ...], Tensor]:
        if self.degree == 1:
            return (), partial
        total = self._rows(f"{name}_sum", self.shape.hidden)
        return (collective(f"{name}_all_reduce", "all_reduce", partial, total),), total

    def _gemm(self, name: str, source: Tensor, result: Tensor, rows: int, columns: int, each: int = 0) -> Operator:
        matrix = Matrix(rows, columns, self.weight_bytes, bias=True)
        return gemm(name, source, result, matrix, each or self.shape.positions)

    def _norm(self, name: str, source: Tensor, result: Tensor) -> Operator:
        return norm(
            name,
            source,
            result,
            width=self.shape.hidden,
            weight_bytes=self.weight_bytes,
            layer_norm=True,
            each=self.shape.positions,
        )
