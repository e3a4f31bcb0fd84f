"""A CLIP vision transformer and the projector that turns its patches into tokens of a language model (LLaVA 1.5).

It runs once per image, with the prompt: sizes are per sequence, each with one image. Heads and FFN columns are split
over the sockets as in the decoder; patch embedding, norms and projector are held by every socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from node.dataflow.attributes import Heads, Norm
from node.dataflow.form import Form
from node.dataflow.graph import Block, Operator, Tensor, share
from node.dataflow.matrix import Matrix
from node.dataflow.operators import activation, activation_function, collective, gemm, norm, softmax
from node.models.shape import Shape, VisionShape

CHANNELS = 3
HIDDEN = "vision_hidden"  # what enters a layer
CLIP_EPSILON = 1e-5  # of its layer norms


def vision_tower(model: Shape, degree: int, rank: int, weight_bytes: float) -> tuple[Block, ...]:
    """The blocks of the ``model``'s tower and of its projector to the language model's hidden size."""
    shape, hidden = model.vision, model.hidden
    assert shape is not None
    build = _Tower(
        shape,
        Heads(tuple(range(len(share(shape.heads, degree, rank)))), shape.head_dim),
        len(share(shape.ffn, degree, rank)),
        degree,
        weight_bytes,
    )
    return (
        Block("patches", build.patches(), in_decode=False),
        Block("vision_layer", build.layer(), shape.layers - 1, in_decode=False),
        Block("vision_last_layer", _last(build.layer()), in_decode=False),
        Block("projector", build.projector(hidden), in_decode=False),
    )


def image_tokens(shape: VisionShape, embedded: Tensor) -> Block:
    """The block in which an image's patches take their places among the embedded tokens, by address."""
    image = activation("image", embedded.shape[0] * shape.patches, "sequences")
    placed = activation("with_image", embedded.shape[0])
    place = Operator("place_image", "layout", (embedded, image), (placed,), mode="memory", function="place")
    return Block("image_tokens", (place,), in_decode=False)


def _last(layer: Sequence[Operator]) -> tuple[Operator, ...]:
    """The last layer, whose output no language model reads: LLaVA takes that of the layer before."""

    def of(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(t if t.name == HIDDEN else replace(t, name=f"last_{t.name}") for t in tensors)

    return tuple(replace(op, inputs=of(op.inputs), outputs=of(op.outputs)) for op in layer)


@dataclass(frozen=True, slots=True)
class _Tower:
    shape: VisionShape
    heads: Heads
    ffn: int
    degree: int
    weight_bytes: float

    def patches(self) -> tuple[Operator, ...]:
        """The convolution over patches as a GEMM, class token and positions added, a norm."""
        shape, rows = self.shape, self.shape.positions
        pixels = self._rows("pixels", CHANNELS * shape.patch**2, shape.patches)
        embedded = self._rows("patch_embeddings", shape.hidden, shape.patches)
        placed, normed = self._rows("vision_placed", shape.hidden), self._rows("vision_embedded", shape.hidden)
        learned = Matrix(rows + 1, shape.hidden, self.weight_bytes)  # the class token, and a row per position
        matrix = Matrix(CHANNELS * shape.patch**2, shape.hidden, self.weight_bytes)
        convolve = gemm("patch_embedding", pixels, embedded, matrix, each=shape.patches)
        place = Operator(
            "positions",
            "elementwise",
            (embedded,),
            (placed,),
            flops=Form(sequences=rows * shape.hidden),
            weights=learned.size,
            weight_read=Form(constant=learned.size),
            matrix=learned,
            function="class_token",
        )
        return (convolve, place, self._norm("pre_norm", placed, normed))

    def layer(self) -> tuple[Operator, ...]:
        """Attention over all positions, FFN with GELU; layer norms, biases."""
        hidden, width = self.shape.hidden, len(self.heads.kv) * self.heads.dim
        x, normed = self._rows(HIDDEN, hidden), self._rows("vision_attention_input", hidden)
        q, k, v = (self._rows(name, width) for name in ("vision_q", "vision_k", "vision_v"))
        pairs = len(self.heads.kv) * self.shape.positions**2
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
            self._product("scores", (q, k), scores, self.shape.positions),
            replace(softmax(scores, probabilities, self.heads), name="vision_softmax", function="image_softmax"),
            self._product("values", (probabilities, v), attended, self.shape.head_dim),
            self._gemm("vision_o_proj", attended, projected, width, hidden),
            *attention_sum,
            self._add("vision_attention_add", (x, attention_total), residual),
            self._norm("vision_ffn_norm", residual, ffn_input),
            self._gemm("vision_up_proj", ffn_input, up, hidden, self.ffn),
            activation_function("vision_gelu", up, activated, "quick_gelu"),
            self._gemm("vision_down_proj", activated, down, self.ffn, hidden),
            *ffn_sum,
            self._add("vision_ffn_add", (residual, ffn_total), output),
        )

    def projector(self, hidden: int) -> tuple[Operator, ...]:
        """The last layer's norm (nobody reads it), then the patches through two linear layers with a GELU between."""
        shape = self.shape
        last, normed = self._rows("last_vision_output", shape.hidden), self._rows("vision_normed", shape.hidden)
        x, patches = self._rows("vision_output", shape.hidden), self._rows("patches", shape.hidden, shape.patches)
        first, activated, tokens = (
            self._rows(n, hidden, shape.patches) for n in ("projected", "projected_gelu", "image")
        )
        return (
            self._norm("post_norm", last, normed),
            Operator("drop_class_token", "layout", (x,), (patches,), mode="memory", function="drop_first"),
            self._gemm("projector_1", patches, first, shape.hidden, hidden, shape.patches),
            activation_function("projector_gelu", first, activated, "gelu_erf"),
            self._gemm("projector_2", activated, tokens, hidden, hidden, shape.patches),
        )

    def _product(self, name: str, sources: tuple[Tensor, ...], result: Tensor, columns: int) -> Operator:
        """Scores or values of each head over all positions of an image; each needs the whole image's keys or values."""
        positions, heads = self.shape.positions, len(self.heads.kv)
        return Operator(
            f"vision_{name}",
            "attention",
            sources,
            (result,),
            flops=Form(sequences=2 * heads * positions**2 * self.heads.dim),
            mode="systolic",
            rows=Form(sequences=heads * positions),
            columns=Form(sequences=heads * columns),
            groups=Form(sequences=heads),
            whole=True,
            function=f"image_{name}",
            attributes=self.heads,
        )

    def _add(self, name: str, sources: tuple[Tensor, ...], result: Tensor) -> Operator:
        return Operator(name, "elementwise", sources, (result,), flops=result.elements, function="add")

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
            Norm(self.shape.hidden, CLIP_EPSILON),
            weight_bytes=self.weight_bytes,
            layer_norm=True,
            each=self.shape.positions,
        )
