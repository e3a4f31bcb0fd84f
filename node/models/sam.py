"""SAM's image encoder (a ViT with windows, relative positions and a neck) as an operator graph: one pass over images.

Sizes are per sequence, an image. Heads and FFN columns are split over the sockets as in the decoders, with an
all-reduce after attention and after the FFN; patch embedding, tables of positions, norms and neck are held, and done,
by every socket. Layers that follow one another and attend alike are one block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from node.dataflow.attributes import Grid, GridHeads, Norm, Patches, Planes, Transpose, Window
from node.dataflow.graph import Block, Graph, Operator, Stencil, Tensor, share
from node.dataflow.image_operators import convolution
from node.dataflow.matrix import Matrix
from node.dataflow.operators import ELEMENT_BYTES, activation, activation_function, collective, gemm, norm
from node.dataflow.window_operators import (
    image_positions,
    regrouped,
    relative_add,
    relative_positions,
    to_patches,
    window_product,
    window_softmax,
)
from node.models.encoder_shape import CHANNELS, EncoderShape

KERNEL = 3  # edge of the neck's second convolution
PIXELS, EMBEDDING = "pixels", "embedding"  # what goes in, and what comes out: planes, one after another


def sam_encoder(shape: EncoderShape, degree: int = 1, rank: int = 0) -> Graph:
    """The graph of one socket's shard, for the shape's image size."""
    build = _Builder(shape, len(share(shape.heads, degree, rank)), len(share(shape.ffn, degree, rank)), degree)
    layers = [
        Block(f"{kind}_{first}", build.layer(shape.grid(first)), count, in_decode=False, first=first)
        for kind, first, count in _runs(shape)
    ]
    return Graph(
        shape.name,
        (
            Block("patches", build.patches(), in_decode=False),
            *layers,
            Block("neck", build.neck(), in_decode=False),
        ),
    )


def _runs(shape: EncoderShape) -> list[tuple[str, int, int]]:
    """Layers in a row that attend alike: how, the first, how many."""
    found = []
    for whole, group in groupby(range(shape.layers), key=lambda layer: layer in shape.global_layers):
        layers = list(group)
        found.append(("global" if whole else "window", layers[0], len(layers)))
    return found


@dataclass(frozen=True, slots=True)
class _Builder:
    """The operators of one shard, which has so many ``heads`` and columns of the ``ffn``."""

    shape: EncoderShape
    heads: int
    ffn: int
    degree: int

    def patches(self) -> tuple[Operator, ...]:
        """Pixels to a row per patch, its embedding, and its place."""
        shape = self.shape
        pixels = Tensor(PIXELS, "sequences", (CHANNELS * shape.image**2,), given=True)
        cut, embedded, placed = (
            self._rows(name, width)
            for name, width in (
                ("patch_pixels", CHANNELS * shape.patch**2),
                ("patch_embedded", shape.hidden),
                ("placed", shape.hidden),
            )
        )
        return (
            to_patches("to_patches", pixels, cut, Patches(shape.side, shape.patch)),
            self._gemm("patch_embedding", cut, embedded, CHANNELS * shape.patch**2, shape.hidden),
            image_positions("positions", embedded, placed, Matrix(shape.rows, shape.hidden, ELEMENT_BYTES)),
        )

    def layer(self, grid: Grid) -> tuple[Operator, ...]:
        """Attention within the windows of a grid, then the FFN with an exact GELU."""
        hidden = self.shape.hidden
        x, residual, ffn_input = (self._rows(name, hidden) for name in ("hidden", "residual", "ffn_input"))
        up, activated = self._rows("up", self.ffn), self._rows("activated", self.ffn)
        down, output = self._rows("ffn_partial", hidden), self._rows("layer_output", hidden)
        attention, attended = self._attention(x, grid)
        attention_sum, attention_total = self._summed("attention", attended)
        ffn_sum, ffn_total = self._summed("ffn", down)
        return (
            *attention,
            *attention_sum,
            _add("attention_add", (x, attention_total), residual),
            self._norm("ffn_norm", residual, ffn_input, hidden),
            self._gemm("up_proj", ffn_input, up, hidden, self.ffn),
            activation_function("gelu", up, activated, "gelu_erf"),
            self._gemm("down_proj", activated, down, self.ffn, hidden),
            *ffn_sum,
            _add("ffn_add", (residual, ffn_total), output),
        )

    def _attention(self, x: Tensor, grid: Grid) -> tuple[tuple[Operator, ...], Tensor]:
        """Up to the partial sums of the output projection, whose rows are those of the image again."""
        hidden, windowed = self.shape.hidden, grid.window < grid.side
        of, width = GridHeads(self.heads, self.shape.head_dim, grid), self.heads * self.shape.head_dim
        pairs = self.heads * grid.rows * grid.window**2
        normed, projected = self._rows("attention_input", hidden), self._rows("attention_partial", hidden)
        source, made = normed, projected
        if windowed:
            source, made = (self._rows(name, hidden, grid.rows) for name in ("in_windows", "window_partial"))
        q, k, v, attended = (self._rows(name, width, grid.rows) for name in ("q", "k", "v", "attended"))
        scores, placed, probabilities = (
            activation(name, pairs, "sequences") for name in ("scores", "placed_scores", "probabilities")
        )
        relative = self._rows("relative", self.heads * 2 * grid.window, grid.rows)
        operators = (
            self._norm("attention_norm", x, normed, hidden),
            *((regrouped("to_windows", normed, source, grid),) if windowed else ()),
            *(self._gemm(f"{one.name}_proj", source, one, hidden, width, grid.rows) for one in (q, k, v)),
            relative_positions("relative_positions", q, relative, of, ELEMENT_BYTES),
            window_product("scores", (q, k), scores, grid.window**2, of),
            relative_add("relative_add", scores, relative, placed, of),
            window_softmax("softmax", placed, probabilities, of),
            window_product("values", (probabilities, v), attended, self.shape.head_dim, of),
            self._gemm("o_proj", attended, made, width, hidden, grid.rows),
            *((regrouped("from_windows", made, projected, grid),) if windowed else ()),
        )
        return operators, projected

    def neck(self) -> tuple[Operator, ...]:
        """Two convolutions without bias, a norm over the channels of each patch after either; planes come out."""
        shape, neck = self.shape, self.shape.neck
        x = self._rows("layer_output", shape.hidden)
        names = ("neck_1", "neck_normed_1", "neck_planes", "neck_2", "neck_rows", "neck_normed_2", EMBEDDING)
        first, normed, planes, second, rows, last, out = (self._rows(name, neck) for name in names)
        of = Planes(neck, shape.side, shape.side)
        return (
            gemm("neck_conv_1", x, first, Matrix(shape.hidden, neck, ELEMENT_BYTES), shape.rows),
            self._norm("neck_norm_1", first, normed, neck),
            self._turned("to_planes", normed, planes, shape.rows),
            convolution("neck_conv_2", planes, second, Window(of, KERNEL, padding=1), neck, bias=False),
            self._turned("to_rows", second, rows, neck),
            self._norm("neck_norm_2", rows, last, neck),
            self._turned("out", last, out, shape.rows),
        )

    def _turned(self, name: str, source: Tensor, result: Tensor, rows: int) -> Operator:
        """From rows of channels to planes of patches, or back, by address."""
        return Operator(
            name,
            "layout",
            (source,),
            (result,),
            mode="memory",
            stencil=Stencil(self.shape.side),
            function="transpose",
            attributes=Transpose(rows),
        )

    def _rows(self, name: str, width: int, rows: int | None = None) -> Tensor:
        return activation(name, width * (rows or self.shape.rows), "sequences")

    def _summed(self, name: str, partial: Tensor) -> tuple[tuple[Operator, ...], Tensor]:
        if self.degree == 1:
            return (), partial
        total = replace(partial, name=f"{name}_sum")
        return (collective(f"{name}_all_reduce", "all_reduce", partial, total),), total

    def _gemm(
        self, name: str, source: Tensor, result: Tensor, rows: int, columns: int, each: int | None = None
    ) -> Operator:
        return gemm(name, source, result, Matrix(rows, columns, ELEMENT_BYTES, bias=True), each or self.shape.rows)

    def _norm(self, name: str, source: Tensor, result: Tensor, width: int) -> Operator:
        of = Norm(width, self.shape.norm_epsilon)
        return norm(name, source, result, of, weight_bytes=ELEMENT_BYTES, layer_norm=True, each=self.shape.rows)


def _add(name: str, sources: tuple[Tensor, ...], result: Tensor) -> Operator:
    return Operator(name, "elementwise", sources, (result,), flops=result.elements, function="add")
