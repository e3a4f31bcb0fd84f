"""Is the graph of SAM's image encoder as large, and its work as much, as its layers are by hand?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.kernels import Asked, pass_of
from node.dataflow.attributes import Grid, GridHeads, Norm
from node.dataflow.form import Step
from node.dataflow.fusion import LEVELS
from node.dataflow.graph import Operator
from node.dataflow.meaning.compute import MEANINGS
from node.dataflow.program import compile_graph
from node.dataflow.stages import most_tiles, work
from node.errors import InputError
from node.estimate import Call, estimate_one_pass
from node.models.encoder import Encoder, is_encoder, load_encoder
from node.models.encoder_shape import ENCODERS, encoder_names
from node.models.one_pass import one_pass
from node.models.sam import sam_encoder
from node.spec_file import load_machine

NODE = load_machine("sn40l-node")
ONE = Step(0, 0, 0, 1)
NAMES = ("sam-vit-b", "sam-vit-l", "sam-vit-h")
# segment-anything 1.0, ImageEncoderViT by build_sam.py: PyTorch counts as many (tests/samda/test_sam_graph.py)
PARAMETERS = {"sam-vit-b": 89_670_912, "sam-vit-l": 308_278_272, "sam-vit-h": 637_026_048}
SIZES = {"sam-vit-b": (768, 12, 12, 4), "sam-vit-l": (1024, 24, 16, 4), "sam-vit-h": (1280, 32, 16, 4)}


SHORT = Encoder(replace(load_encoder("sam-vit-b").shape, layers=4, global_layers=(2,)))


def of(name: str) -> Encoder:
    return load_encoder(name)


def operators(encoder: Encoder, degree: int = 1, rank: int = 0) -> list[tuple[str, int, Operator]]:
    """(block, repetitions, operator)."""
    graph = encoder.graph(degree, rank)
    return [(block.name, block.repeat, op) for block in graph.blocks for op in block.operators]


def flops(encoder: Encoder, mode: str, degree: int = 1, rank: int = 0) -> float:
    return sum(repeat * op.flops.at(ONE) for _, repeat, op in operators(encoder, degree, rank) if op.mode == mode)


def test_the_built_in_encoders_are_these_and_one_pass_models() -> None:
    assert encoder_names() == sorted(NAMES)
    for name in NAMES:
        found = one_pass(name)
        assert found is not None and found.together and found.name == name
    assert one_pass("llama-2-7b") is None and not is_encoder("llama-2-7b")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_pytorchs_and_so_are_the_layers(name: str) -> None:
    shape = of(name).shape
    assert of(name).graph().weight_bytes == 2 * PARAMETERS[name] == 2 * (shape.parameters or 0)
    hidden, layers, heads, global_layers = SIZES[name]
    assert (shape.hidden, shape.layers, shape.heads, len(shape.global_layers)) == (hidden, layers, heads, global_layers)
    blocks = of(name).graph().blocks
    assert sum(block.repeat for block in blocks if block.name.startswith("window")) == layers - 4
    firsts = [block.first + index for block in blocks if "_" in block.name for index in range(block.repeat)]
    assert firsts == list(range(layers))


@pytest.mark.parametrize("name", NAMES)
def test_flops_of_products_are_2mnk_of_each(name: str) -> None:
    """Of windows 25 x 196 rows, the 804 that fill them up among them; a bias adds one to each element."""
    hidden, layers, heads, whole = SIZES[name]
    dim, rows, filled = hidden // heads, 64 * 64, 70 * 70

    def attention(rows: int, keys: int, edge: int) -> int:
        projections = 4 * rows * (2 * hidden + 1) * hidden
        both_products = 2 * 2 * heads * rows * keys * dim
        relative = 2 * 2 * heads * rows * edge * dim
        return projections + both_products + relative

    ffn = rows * ((2 * hidden + 1) * 4 * hidden + (2 * 4 * hidden + 1) * hidden)
    expected = rows * (2 * 3 * 16 * 16 + 1) * hidden
    expected += (layers - whole) * (attention(filled, 14 * 14, 14) + ffn)
    expected += whole * (attention(rows, rows, 64) + ffn)
    expected += rows * (2 * hidden * 256 + 2 * 9 * 256 * 256)
    assert flops(of(name), "systolic") == expected


def test_flops_of_all_else() -> None:
    """Of ViT-B: norms 7, softmax 5, relative positions 2, GELU 5, a sum 1, positions 1 an element."""
    rows, filled, hidden, heads = 64 * 64, 70 * 70, 768, 12
    pairs = {"window": heads * filled * 196, "global": heads * rows * rows}
    each = 2 * 7 * rows * hidden + 2 * rows * hidden + 5 * rows * 4 * hidden
    expected = rows * hidden + 12 * each + (8 * pairs["window"] + 4 * pairs["global"]) * (5 + 2) + 2 * 7 * rows * 256
    assert flops(of("sam-vit-b"), "simd") == expected


def test_bytes_between_operators_count_what_fills_windows() -> None:
    """Of one unfused layer of ViT-B: what each operator makes, 2 bytes an element."""
    made = {
        op.name: op.outputs[0].size.at(ONE) / 2 for block, _, op in operators(of("sam-vit-b")) if block == "window_0"
    }
    rows, filled, hidden, pairs = 64 * 64, 70 * 70, 768, 12 * 25 * 196 * 196
    assert made == {
        "attention_norm": rows * hidden, "to_windows": filled * hidden,
        "q_proj": filled * hidden, "k_proj": filled * hidden, "v_proj": filled * hidden,
        "relative_positions": 12 * filled * 28, "scores": pairs, "relative_add": pairs, "softmax": pairs,
        "values": filled * hidden, "o_proj": filled * hidden, "from_windows": rows * hidden,
        "attention_add": rows * hidden, "ffn_norm": rows * hidden, "up_proj": rows * 4 * hidden,
        "gelu": rows * 4 * hidden, "down_proj": rows * hidden, "ffn_add": rows * hidden,
    }  # fmt: skip


def test_parallel_parts_of_products_are_their_flops() -> None:
    """Groups x rows of a group x columns of a group x 2 x what is summed: a query's 64 elements, or a window's keys."""
    inner = {"relative_positions": 64, "scores": 64}
    for block, _, op in operators(of("sam-vit-b")):
        if op.mode != "systolic":
            continue
        grid = of("sam-vit-b").shape.grid(2 if block.startswith("global") else 0)
        summed = {**inner, "values": grid.window**2}.get(op.name, op.matrix.rows if op.matrix else 0)
        groups, rows, columns = (part.at(ONE) for part in (op.groups, op.rows, op.columns))
        bias = rows * columns / groups if op.matrix is not None and op.matrix.bias else 0
        assert op.flops.at(ONE) == 2 * rows * (columns / groups) * summed + bias, op.name
        if op.name in ("scores", "values"):
            assert groups == 12 * grid.windows
        elif op.name == "relative_positions":
            assert (groups, columns / groups) == (2 * grid.window, grid.window)  # a line's, or a column's, of all heads
        else:
            assert groups == 1


def kernel_tiles(batch: int, sockets: int) -> dict[str, tuple[int, set[str], int]]:
    """Of each kernel of ViT-B's layers 0 to 3: tiles, operators, bytes of SRAM."""
    graph = SHORT.graph(sockets)
    machine = replace(NODE, sockets=sockets)
    found = {}
    for kernel in compile_graph(graph, machine, sockets, "fused", "ho").prefill_kernels(replace(ONE, sequences=batch)):
        assert kernel.placement is not None
        names = {op.name for op in kernel.operators}
        found[kernel.name] = (kernel.placement.tiles, names, kernel.placement.sram_bytes)
    return found


def test_the_most_tiles_of_an_image() -> None:
    """Lines of patches, lines of windows, windows, or the image; keys that enter leave queries free."""
    blocks = {block.name: block.operators for block in of("sam-vit-b").graph().blocks}

    def most(block: str, first: str, last: str) -> float:
        names = [op.name for op in blocks[block]]
        return float(most_tiles(blocks[block], [(names.index(first), names.index(last))], 1)[0])

    assert most("patches", "to_patches", "positions") == 64
    assert most("window_0", "attention_norm", "from_windows") == most("window_0", "to_windows", "to_windows") == 5
    assert most("window_0", "k_proj", "values") == most("window_0", "v_proj", "values") == 25
    assert most("global_2", "k_proj", "values") == most("global_2", "v_proj", "values") == 1
    for block in ("window_0", "global_2"):
        assert most(block, "scores", "values") == most(block, "attention_add", "ffn_add") == np.inf
    assert most("neck", "to_planes", "to_planes") == 64


def test_tiles_of_whole_windows_share_keys_as_the_pass_does() -> None:
    """196 rows of a group in up to 25 tiles, then fewer: an array of 6 rows is filled as well as it can be."""
    (scores,) = (op for block, _, op in operators(of("sam-vit-b")) if (block, op.name) == ("window_0", "scores"))
    tiles = np.array([1.0, 5.0, 25.0, 100.0])
    _, blocks = work(scores, ONE, tiles, NODE)
    assert blocks.tolist() == [33, 33, 33, 9]  # 196 / 6, 49 / 6


@pytest.mark.parametrize("batch", [1, 4])
def test_tiles_are_no_smaller_than_attention_and_windows_allow(batch: int) -> None:
    """A kernel that makes keys has whole windows for tiles, one of windows' order whole lines of them."""
    tiles = kernel_tiles(batch, 8)
    assert len({name.split(".")[0] for name in tiles}) == 5
    for name, (count, names, _) in tiles.items():
        if names & {"to_windows", "from_windows"}:
            assert count <= 5 * batch, name
        if {"k_proj", "scores"} <= names or {"v_proj", "values"} <= names:
            assert count <= (25 if name.startswith("window") else 1) * batch, name


def test_a_layer_that_attends_to_all_streams_its_scores_where_keys_enter() -> None:
    """Scores of 4096 x 4096 for 12 heads are 0.4 GB, which no kernel could hold and none moves."""
    scores = 12 * 4096**2 * 2
    of_global = [found for name, found in kernel_tiles(1, 1).items() if name.startswith("global_2")]
    (one,) = (found for found in of_global if {"scores", "values"} <= found[1])
    count, names, held = one
    assert count > 1 and "k_proj" not in names
    whole = 2 * 4096 * 768 * 2  # keys and values, filled while others are read
    assert whole * 2 < held < scores


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("degree", [1, 8])
def test_every_level_has_all_flops_and_fewer_bytes(level: str, degree: int) -> None:
    """Kernels of a pass do the graph's FLOPs, whatever is fused; what is fused moves less than what is not."""
    graph = SHORT.graph(degree)
    machine = replace(NODE, sockets=degree)
    moved = {}
    for one in {level, "unfused"}:
        kernels = compile_graph(graph, machine, degree, one, "ho").prefill_kernels(ONE)
        done = sum(kernel.repeat * kernel.iterations * kernel.flops.at(ONE) for kernel in kernels)
        assert done == pytest.approx(sum(b.repeat * op.flops.at(ONE) for b in graph.blocks for op in b.operators))
        moved[one] = sum(kernel.repeat * kernel.iterations * kernel.hbm.at(ONE) for kernel in kernels)
        for kernel in kernels:
            assert kernel.placement is not None
            assert kernel.placement.pcus <= machine.compute.units and kernel.placement.pmus <= machine.sram.banks
    assert moved[level] < moved["unfused"] or level == "unfused"
    assert moved[level] > graph.weight_bytes


def test_the_heads_of_eight_sockets_are_uneven_and_all_there() -> None:
    """12 heads: four sockets have two, four have one; the work of all is the work of one."""
    encoder = of("sam-vit-b")
    heads = [
        op.attributes.heads
        for rank in range(8)
        for block, _, op in operators(encoder, 8, rank)
        if block == "global_2" and isinstance(op.attributes, GridHeads) and op.name == "scores"
    ]
    assert heads == [2] * 4 + [1] * 4
    split = ("scores", "values", "q_proj", "k_proj", "v_proj", "relative_positions", "up_proj")
    whole, parts = Counter[str](), Counter[str]()
    for degree, counter in ((1, whole), (8, parts)):
        for rank in range(degree):
            for _, repeat, op in operators(encoder, degree, rank):
                if op.name in split:
                    counter[op.name] += int(repeat * op.flops.at(ONE))
    assert parts == whole
    reduced = [op for _, _, op in operators(encoder, 8) if op.collective]
    assert {op.message.at(ONE) for op in reduced} == {64 * 64 * 768 * 2} and len(reduced) == 2 * 8


def test_an_estimate_is_the_slowest_sockets_and_grows_with_the_batch() -> None:
    one, four = (estimate_one_pass(NODE, of("sam-vit-b"), Call(1, 1, batch)) for batch in (1, 4))
    first, last = (pass_of("sam-vit-b", NODE, Asked("prefill", None, 1, "fused", "ho", rank)) for rank in (0, 7))
    assert one.prefill_s == pytest.approx(first.seconds, rel=1e-6)
    assert last.seconds < first.seconds  # a head less
    assert 2 < four.prefill_s / one.prefill_s < 4  # launches and filling count once
    flops = sum(kernel.repeat * kernel.flops.at(ONE) for kernel in first.kernels)
    assert one.flops_fraction == pytest.approx(flops / one.prefill_s / NODE.compute.peak_flops_per_s)


@pytest.mark.parametrize(("quicker", "bound"), [(0.01, {"link"}), (100, {"compute", "hbm", "sram"})])
def test_what_bounds_a_pass_is_what_there_is_least_of(quicker: float, bound: set[str]) -> None:
    machine = replace(NODE, peer=replace(NODE.peer, bandwidth=NODE.peer.bandwidth * quicker))
    assert estimate_one_pass(machine, SHORT, Call(1, 1, 4)).bound_by in bound


def test_an_image_of_another_size_has_other_tables() -> None:
    """512 pixels: 32 x 32 patches; windows fill up to 42 x 42; positions of the image and of global layers shrink."""
    encoder = Encoder(replace(of("sam-vit-b").shape, image=512))
    difference = (64 * 64 - 32 * 32) * 768 + 4 * 2 * (2 * 64 - 2 * 32) * 64
    assert encoder.graph().weight_bytes == 2 * (PARAMETERS["sam-vit-b"] - difference)
    assert (encoder.shape.grid(0).rows, encoder.shape.grid(2).rows) == (42 * 42, 32 * 32)


def test_a_window_as_large_as_the_image_is_the_image() -> None:
    graph = sam_encoder(replace(of("sam-vit-b").shape, image=14 * 16))
    names = [op.name for block in graph.blocks for op in block.operators]
    assert "to_windows" not in names
    assert Grid(14, 14).windows == 1


def test_norms_are_sams() -> None:
    """nn.LayerNorm and LayerNorm2d with eps 1e-6: over the hidden size, and over the neck's channels."""
    norms = [op.attributes for _, _, op in operators(of("sam-vit-b")) if isinstance(op.attributes, Norm)]
    assert Counter((norm.width, norm.epsilon) for norm in norms) == {(768, 1e-6): 2 * 8, (256, 1e-6): 2}


def test_every_operator_has_a_meaning() -> None:
    for _, _, op in operators(of("sam-vit-b"), 8):
        assert op.collective or op.meaning in MEANINGS, op.name


def test_a_checkpoint_that_lacks_a_tensor_is_named() -> None:
    def tensor(name: str) -> np.ndarray:
        raise KeyError(name)

    for operator, layer, missing in (
        ("q_proj", 3, "blocks.3.attn.qkv.weight"),
        ("relative_positions", 11, "blocks.11.attn.rel_pos_h"),
        ("positions", 0, "pos_embed"),
        ("neck_conv_2", 0, "neck.2.weight"),
    ):
        with pytest.raises(InputError, match=f"model sam-vit-b: its checkpoint has no tensor {missing}"):
            of("sam-vit-b").weights(operator, layer, tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("layers = 12", "layers = 0"), "layers = 0: must be a positive int, at most 1,000,000"),
        (("heads = 12", "heads = 7"), "heads must divide hidden, and patch must divide image"),
        (("patch = 16", "patch = 15"), "heads must divide hidden, and patch must divide image"),
        (("neck = 256\n", ""), "neck missing"),
        (("neck =", "nock ="), "nock: unknown key; an image encoder has name, layers"),
        (("[2, 5, 8, 11]", "[2, 12]"), "global_layers: 12: must be below 12, the layers"),
        (("[2, 5, 8, 11]", "[-1]"), r"global_layers = \[-1\]: must be a list of whole numbers"),
        (("norm_epsilon = 1e-6", 'norm_epsilon = "a"'), "norm_epsilon = 'a': must be a number from 0 to 1"),
        (('name = "sam-vit-b"', "name = 3"), "name = 3: must be a str"),
    ],
)
def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (ENCODERS / "sam-vit-b.toml").read_text()
    assert change[0] in text
    path = tmp_path / "own.toml"
    path.write_text(text.replace(*change))
    with pytest.raises(InputError, match=message):
        one_pass(str(path))


def test_a_file_of_an_encoder_is_one(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text((ENCODERS / "sam-vit-b.toml").read_text().replace("image = 1024", "image = 512"))
    found = one_pass(str(path))
    assert isinstance(found, Encoder) and found.shape == replace(of("sam-vit-b").shape, image=512)
