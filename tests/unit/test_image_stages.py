"""Which parts of an image may be a tile, how much later a stencil works and what it holds; by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from node.dataflow.attributes import Planes, Window
from node.dataflow.compiler import Compiler
from node.dataflow.form import Step
from node.dataflow.fusion import MOST_JOINED, blocks_at
from node.dataflow.graph import Block, Operator
from node.dataflow.image_operators import convolution, instance_norm, leaky_relu, planes
from node.dataflow.placement import Search
from node.dataflow.stages import behind, depths, kept, most_tiles
from node.spec_file import load_machine

OF = Planes(8, 64, 64)
LINE = 8 * 64 * 2  # bytes of a line of all channels
SOCKET = load_machine("sn40l-socket")


def _chain(of: Planes = OF, name: str = "") -> tuple[Operator, ...]:
    """Convolution, statistics, normalising, leaky ReLU, convolution; ``name``: behind all names."""
    x, y, z, r, out = (planes(f"{which}{name}", of) for which in "xyzro")
    over = Window(of, 3, 1, 1)
    return (
        convolution(f"first{name}", x, y, over, of.channels),
        *instance_norm(f"norm{name}", y, z, of, 1e-5),
        leaky_relu(f"relu{name}", z, r, 0.01),
        convolution(f"second{name}", r, out, over, of.channels),
    )


def _images(count: int) -> Step:
    return Step(0, 0, 0, count)


def test_who_normalises_in_the_kernel_of_the_statistics_needs_whole_images() -> None:
    ranges = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 4), (3, 3), (0, 4)]
    assert most_tiles(_chain(), ranges, 3).tolist() == [192, 3, np.inf, 3, 192, np.inf, 3]


def test_a_stencil_works_a_tile_later_where_tiles_are_parts_of_images() -> None:
    ranges = [(0, 0), (0, 1), (0, 4), (2, 4)]
    assert depths(_chain(), ranges, cut=False).tolist() == [1, 2, 5, 3]
    assert depths(_chain(), ranges, cut=True).tolist() == [2, 3, 7, 4]


def test_a_stencil_holds_the_tile_that_it_reads_ahead_of_and_lines_of_the_one_before() -> None:
    (uncut, uncut_entering), (cut, cut_entering) = (kept(_chain(), cut=parts) for parts in (False, True))
    assert (uncut[3], cut[3]) == (2, 3)  # what the leaky ReLU makes for the second convolution
    assert (uncut_entering[0], cut_entering[0]) == (2, 3)
    assert uncut[0] == cut[0] == 3  # read by the statistics and, one stage on, to be normalised
    assert behind(_chain()).tolist() == [LINE, 0, 0, 0, LINE]


def test_lines_before_the_tile_take_room_in_its_buffer() -> None:
    """Two searches that differ in nothing else."""
    chain = _chain()
    plain, wide = (Search(ops, [(2, 4)], _images(1), SOCKET, 1) for ops in (chain, _with_behind(chain, 10**6)))
    held = (wide._held - plain._held)[0, :, 4]  # of the last operator, by number of tiles
    assert held.tolist() == [0.0, *[10**6 - LINE] * (len(held) - 1)] and len(held) > 5


def test_a_search_counts_so_for_each_number_of_tiles() -> None:
    """The leaky ReLU and the convolution after it: whole images, then parts of them."""
    search = Search(_chain(), [(3, 4), (4, 4)], _images(1), SOCKET, 1)
    image, tiles = 2 * OF.elements, search.tiles
    assert tiles[0] == 1 and len(tiles) > 5
    assert search._depth.tolist() == [[2, *[3] * (len(tiles) - 1)], [1, *[2] * (len(tiles) - 1)]]
    made, entering = search._held[0, :, 3] - 2 * image / tiles, search._held[1, :, 4]  # without what enters the ReLU
    result = 2 * image / tiles  # of the convolution, held twice
    np.testing.assert_allclose(made, [2 * image, *3 * image / tiles[1:]])
    np.testing.assert_allclose(entering - result, [2 * image, *(3 * image / tiles[1:] + LINE)])


def test_a_placement_has_the_depth_of_its_tiles() -> None:
    search = Search(_chain(Planes(256, 256, 256)), [(2, 4)], _images(1), SOCKET, 1)
    placed = search.placement(0)
    assert placed.tiles > 1 and placed.depth == 4


def _with_behind(operators: tuple[Operator, ...], size: int) -> tuple[Operator, ...]:
    """The last operator reads more of the tile before."""
    last = operators[-1]
    assert last.stencil is not None
    return (*operators[:-1], replace(last, stencil=replace(last.stencil, behind=size)))


def test_kernels_end_where_statistics_are_complete() -> None:
    """Over one image a pipeline needs parts of it: a norm's second half goes with what comes after."""
    compiler = Compiler.of(SOCKET, 1, "fused", "ho")
    first, second = compiler.kernels([Block("stage", _chain(Planes(256, 256, 256)))], _images(1))
    assert [op.name for op in first.operators] == ["first", "norm_statistics"]
    assert [op.name for op in second.operators] == ["norm", "relu", "second"]
    assert first.placement is not None and second.placement is not None
    assert min(first.placement.tiles, second.placement.tiles) > 1
    (whole,) = compiler.kernels([Block("stage", _chain())], _images(64))
    assert whole.placement is not None and 1 < whole.placement.tiles <= 64  # images after one another, all stages


def test_a_network_of_many_stages_is_cut_before_its_kernels_are_sought() -> None:
    blocks = [Block(f"stage{number}", _chain(name=str(number))) for number in range(9)]
    joined = blocks_at(blocks, "fused")
    assert [len(block.operators) for block in joined] == [20, 20, 5] and MOST_JOINED == 24
    names = [[op.name for block in of for op in block.operators] for of in (joined, blocks)]
    assert names[0] == names[1]
    assert blocks_at(blocks, "conventional") == blocks
