"""Operators on images by kind: FLOPs, bytes and parallel parts. A sequence is an image; what lies between is BF16.

An image lies plane after plane, so that a socket's share of the channels is one piece, and an all-gather of shares, by
rank, is the image with all its channels.

A convolution is a GEMM whose rows are the places of its window: every element of the image is taken several times, by
the addresses that PMUs generate as they feed the rows (im2col), and nothing is copied for it. What is taken more often
is in the streams of operands that ``placement`` counts, since these are as long as the inner dimension. The buffer of
its input holds, beside whole tiles, the lines of the tile before that the window still reaches, and where the window
reaches into the tile after, it works a tile later (``Stencil``).

An instance norm is two operators. Statistics grow with every tile that comes by, and are complete with the image's
last; who normalises with them needs the whole image before in the same kernel, but no more than a tile if the kernel
before has made them. So a fuser may put statistics behind the convolution that makes the planes, and normalising before
the one that takes them.
"""

from __future__ import annotations

from node.dataflow.attributes import Norm, Planes, Resize, Slope, Window
from node.dataflow.form import Form
from node.dataflow.graph import Operator, Stencil, Tensor
from node.dataflow.matrix import Matrix
from node.dataflow.operators import ELEMENT_BYTES, ONE

BILINEAR = 4  # elements that one between them is made of


def planes(name: str, of: Planes, *, kept: bool = False, given: bool = False) -> Tensor:
    """An image per sequence; ``kept``: a later block reads it too; ``given``: the pass is over it."""
    return Tensor(name, "sequences", (of.elements,), kept=kept, given=given)


def convolution(
    name: str,
    source: Tensor,
    result: Tensor,
    over: Window,
    channels: int,
    weight_bytes: float = ELEMENT_BYTES,
    *,
    bias: bool = True,
) -> Operator:
    """A product for each place of the window: size x size x channels in by the ``channels`` made, maybe with a bias."""
    made = over.made(channels)
    matrix = Matrix(over.size**2 * over.of.channels, channels, weight_bytes, bias=bias)
    return Operator(
        name,
        "gemm",
        (source,),
        (result,),
        flops=Form(sequences=made.elements * (2 * matrix.rows + bias)),
        mode="systolic",
        rows=Form(sequences=made.pixels),
        columns=ONE * channels,
        groups=ONE,
        stencil=_stencil(over),
        weights=matrix.size,
        weight_read=Form(constant=matrix.size),
        matrix=matrix,
        function="convolution",
        attributes=over,
    )


def _stencil(over: Window) -> Stencil:
    """Of line i the window reads from line i x stride - padding on; a tile of the image has stride lines for each made.

    Where it reads further ahead than a tile of one line would have, a tile has as many lines as it reads ahead.
    """
    line = over.of.channels * over.of.width * ELEMENT_BYTES
    ahead = max(0, over.size - over.padding - over.stride)
    lines = over.made(1).height // max(1, -(-ahead // over.stride))
    return Stencil(max(1, lines), over.padding * line, ahead > 0)


def transposed_convolution(
    name: str,
    source: Tensor,
    result: Tensor,
    of: Planes,
    channels: int,
    factor: int,
    weight_bytes: float = ELEMENT_BYTES,
) -> Operator:
    """Each element of the planes ``of`` becomes factor x factor, which no other adds to: a product, and no zeros.

    Its rows are the places of the source, its columns factor x factor x ``channels``; results are written to their
    places by address. Weights are held as (factor x factor x channels in, channels), with a bias of each channel made.
    """
    matrix = Matrix(factor**2 * of.channels, channels, weight_bytes, bias=True)
    columns = factor**2 * channels
    return Operator(
        name,
        "gemm",
        (source,),
        (result,),
        flops=Form(sequences=of.pixels * columns * (2 * of.channels + 1)),
        mode="systolic",
        rows=Form(sequences=of.pixels),
        columns=ONE * columns,
        groups=ONE,
        stencil=Stencil(of.height),
        weights=matrix.size,
        weight_read=Form(constant=matrix.size),
        matrix=matrix,
        function="transposed_convolution",
        attributes=of,
    )


POOLINGS = {"max_pool": 0, "average_pool": 1}  # FLOPs of a place beside those of joining its elements


def pooling(name: str, source: Tensor, result: Tensor, over: Window, function: str) -> Operator:
    """The greatest of each window's elements, or their mean: one FLOP for each but the first, a product for a mean."""
    made = over.made(over.of.channels)
    return Operator(
        name,
        "elementwise",
        (source,),
        (result,),
        flops=Form(sequences=made.elements * (over.size**2 - 1 + POOLINGS[function])),
        passes=over.size**2,
        stencil=_stencil(over),
        function=function,
        attributes=over,
    )


def instance_norm(
    name: str, source: Tensor, result: Tensor, of: Planes, epsilon: float, weight_bytes: float = ELEMENT_BYTES
) -> tuple[Operator, Operator]:
    """Each plane less its mean, by its deviation, times a weight, plus a bias: 7 FLOPs an element, taken twice.

    Statistics: sum, square, sum. Normalising: subtract, scale, multiply, shift. Between them a mean and a scale of each
    channel in FP32.
    """
    matrix = Matrix(2, of.channels, weight_bytes)
    statistics = Tensor(f"{name}_statistics", "sequences", (2 * of.channels,), dtype="fp32")
    gather = Operator(
        f"{name}_statistics",
        "rowwise",
        (source,),
        (statistics,),
        flops=Form(sequences=3 * of.elements),
        reduces=True,
        function="plane_statistics",
        attributes=Norm(of.pixels, epsilon),
    )
    apply = Operator(
        name,
        "elementwise",
        (source, statistics),
        (result,),
        flops=Form(sequences=4 * of.elements),
        weights=matrix.size,
        weight_read=Form(constant=matrix.size),
        matrix=matrix,
        function="normalise_planes",
        attributes=Norm(of.pixels, epsilon),
    )
    return gather, apply


def leaky_relu(name: str, source: Tensor, result: Tensor, slope: float) -> Operator:
    """The greater of an element and ``slope`` times it: 2 FLOPs."""
    flops = result.elements * 2
    return Operator(
        name, "elementwise", (source,), (result,), flops=flops, function="leaky_relu", attributes=Slope(slope)
    )


def standardise(name: str, source: Tensor, result: Tensor, of: Planes, weight_bytes: float = ELEMENT_BYTES) -> Operator:
    """Each plane less a mean of its channel, by a deviation, both of them learned before: 2 FLOPs an element."""
    matrix = Matrix(2, of.channels, weight_bytes)
    return Operator(
        name,
        "elementwise",
        (source,),
        (result,),
        flops=Form(sequences=2 * of.elements),
        weights=matrix.size,
        weight_read=Form(constant=matrix.size),
        matrix=matrix,
        function="standardise",
    )


def concatenation(name: str, sources: tuple[Tensor, ...], result: Tensor) -> Operator:
    """The channels of several images after one another, by address."""
    return Operator(name, "layout", sources, (result,), mode="memory", function="concatenation")


def bilinear(name: str, source: Tensor, result: Tensor, sizes: Resize) -> Operator:
    """Planes of another size: each element the mean of its four nearest, by distance: 4 products and 3 sums.

    Of the source two lines are between them, one of them before the tile.
    """
    line = sizes.source.channels * sizes.source.width * ELEMENT_BYTES
    lines = min(sizes.source.height, sizes.target.height)
    return Operator(
        name,
        "elementwise",
        (source,),
        (result,),
        flops=result.elements * (2 * BILINEAR - 1),
        passes=BILINEAR,
        stencil=Stencil(lines, line, ahead=True),
        function="bilinear",
        attributes=sizes,
    )
