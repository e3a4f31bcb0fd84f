"""Operators of attention in windows over an image's patches, by kind. A sequence is an image; activations are BF16.

Rows of patches go to windows and back by the access patterns of the PMUs between which they lie: nothing is computed
for it, and no HBM moved within a kernel. Windows that the edge cuts are filled with zeros: these are rows like others,
projected, attended to and counted.
"""

from __future__ import annotations

from dataclasses import replace

from node.dataflow.attributes import Grid, GridHeads, Heads, Patches
from node.dataflow.form import Form
from node.dataflow.graph import Operator, Stencil, Tensor
from node.dataflow.matrix import Matrix
from node.dataflow.operators import ONE, softmax


def to_patches(name: str, source: Tensor, result: Tensor, of: Patches) -> Operator:
    """An image's planes to a row per patch: what a convolution with the patch's size and stride multiplies."""
    return Operator(
        name,
        "layout",
        (source,),
        (result,),
        mode="memory",
        stencil=Stencil(of.side),
        function="to_patches",
        attributes=of,
    )


def image_positions(name: str, source: Tensor, result: Tensor, table: Matrix) -> Operator:
    """To each patch's row its own of the ``table`` is added, one FLOP an element."""
    return Operator(
        name,
        "elementwise",
        (source,),
        (result,),
        flops=result.elements,
        weights=table.size,
        weight_read=Form(constant=table.size),
        matrix=table,
        function="image_positions",
    )


def regrouped(name: str, source: Tensor, result: Tensor, of: Grid) -> Operator:
    """Rows from an image's order to that of windows (``to_windows``), or back (``from_windows``), by ``name``.

    A tile is at least a line of windows.
    """
    lines = Stencil(of.across)
    return Operator(name, "layout", (source,), (result,), mode="memory", stencil=lines, function=name, attributes=of)


def relative_positions(name: str, query: Tensor, result: Tensor, of: GridHeads, weight_bytes: float) -> Operator:
    """Of each query a product with the table's row for each distance to a line, and to a column, of its window.

    2 x (elements of a head) FLOPs for each; queries on one line share their rows for lines, those in one column theirs
    for columns, over all heads and windows. The table: a row for each distance between lines, then between columns.
    """
    edge, queries = of.grid.window, of.heads * of.grid.rows
    table = Matrix(2 * (2 * edge - 1), of.dim, weight_bytes)
    return Operator(
        name,
        "gemm",
        (query,),
        (result,),
        flops=Form(sequences=2 * queries * 2 * edge * of.dim),
        mode="systolic",
        rows=Form(sequences=2 * queries),
        columns=ONE * (2 * edge * edge),
        groups=ONE * (2 * edge),
        weights=table.size,
        weight_read=Form(constant=table.size),
        matrix=table,
        function="relative_positions",
        attributes=of,
    )


def window_product(name: str, sources: tuple[Tensor, Tensor], result: Tensor, columns: int, of: GridHeads) -> Operator:
    """Scores or values (``name``) of each head and window: each needs all its keys or values, the second source."""
    groups = of.heads * of.grid.windows
    edge = of.grid.window**2
    return Operator(
        name,
        "attention",
        sources,
        (result,),
        flops=Form(sequences=2 * groups * edge * edge * of.dim),
        mode="systolic",
        rows=Form(sequences=groups * edge),
        columns=Form(sequences=groups * columns),
        groups=Form(sequences=groups),
        stencil=Stencil(of.grid.windows),
        stationary=(sources[1].name,),
        function=f"window_{name}",
        attributes=of,
    )


def relative_add(name: str, scores: Tensor, relative: Tensor, result: Tensor, of: GridHeads) -> Operator:
    """To each score what its query has for the key's line and for its column: 2 FLOPs."""
    return Operator(
        name,
        "elementwise",
        (scores, relative),
        (result,),
        flops=result.elements * 2,
        function="relative_add",
        attributes=of,
    )


def window_softmax(name: str, scores: Tensor, probabilities: Tensor, of: GridHeads) -> Operator:
    """Over the keys of a window: as of any attention."""
    plain = softmax(scores, probabilities, Heads((), of.dim))
    return replace(plain, name=name, function="window_softmax", attributes=of)
