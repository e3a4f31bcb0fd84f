"""Is the graph of a U-Net what its file says, are channels split as told, and is a wrong file one line?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node.dataflow.form import Step
from node.dataflow.graph import Graph, Operator
from node.errors import InputError
from node.models.unet import unet
from node.models.unet_shape import Composition, UNetShape, expert_of, is_expert, load_expert
from node.models.unet_weights import module_of, shard_of, weights_of
from node.models.vision_expert import VisionExpert

SMALL = UNetShape("small", 1, (4, 6, 9), (1, 2, 2), 3, (2, 2, 2), (2, 2), 2, 1e-5, 0.01, (16, 24))
ADAPTER = replace(SMALL, composition=Composition("adapter", 7, 5))
FILE: dict[str, object] = {
    "format": 1,
    "kind": "samda-expert",
    "unet": {
        "input_channels": 1,
        "features": [4, 6, 9],
        "strides": [1, 2, 2],
        "kernel": 3,
        "convs_encoder": [2, 2, 2],
        "convs_decoder": [2, 2],
        "classes": 2,
        "norm_epsilon": 1e-5,
        "leaky_slope": 0.01,
    },
    "composition": {
        "kind": "adapter",
        "encoder": {"name": "hed", "hash": "0", "channels": 7, "stride": 8},
        "adapter": {"hidden": 5},
    },
    "patch": [16, 24],
}


def _operators(graph: Graph) -> dict[str, Operator]:
    return {op.name: op for block in graph.blocks for op in block.operators}


def test_an_expert_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "expert.json").write_text(json.dumps(FILE))
    expected = replace(ADAPTER, name=tmp_path.name)
    assert load_expert(str(tmp_path)) == load_expert(str(tmp_path / "expert.json")) == expected
    assert is_expert(str(tmp_path)) and not is_expert(str(tmp_path.parent)) and not is_expert("llama-2-7b")


def test_the_built_in_expert_is_what_its_comment_says() -> None:
    shape = load_expert("samda-unet")
    held = sum(op.matrix.elements for op in _operators(unet(shape)).values() if op.matrix is not None)
    assert (shape.patch, held + shape.supervision_parameters) == ((256, 256), 1_944_232)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("format", 2, "format = 2: must be 1"),
        ("kind", None, "kind = None: must be 'samda-expert'"),
        ("unet", [], "unet = [] : must be a table"),
        ("unet.features", [4, 0, 9], "unet.features = [4, 0, 9]: must be a list of positive ints"),
        ("unet.features", [4], "unet.features = [4]: must be of two stages at least"),
        ("unet.strides", [1, 2], "unet.strides = [1, 2]: must have 3 entries, for 3 features"),
        ("unet.convs_decoder", [2, 2, 2], "unet.convs_decoder = [2, 2, 2]: must have 2 entries, for 3 features"),
        ("unet.kernel", 4, "unet.kernel = 4: must be odd"),
        ("unet.classes", True, "unet.classes = True: must be a positive int"),
        ("unet.norm_epsilon", None, "unet.norm_epsilon = None: must be a number from 0 to 1"),
        ("unet.leaky_slope", "0.01", "unet.leaky_slope = '0.01': must be a number from 0 to 1"),
        ("composition.kind", "sum", "composition.kind = 'sum': must be one of plain, concat, adapter"),
        ("composition.encoder", None, "composition.encoder = None: must be a table"),
        ("composition.encoder.channels", -1, "composition.encoder.channels = -1: must be a positive int"),
        ("composition.adapter.hidden", None, "composition.adapter.hidden = None: must be a positive int"),
        ("patch", [16], "patch = [16]: must be height and width in pixels"),
        ("patch", [16, 30], "patch = [16, 30]: must be multiples of 4, the product of unet.strides"),
    ],
)
def test_a_wrong_file_is_one_line(path: str, value: object, line: str) -> None:
    values = json.loads(json.dumps(FILE))
    *tables, key = path.split(".")
    table = values
    for name in tables:
        table = table[name]
    table[key] = value
    with pytest.raises(InputError) as raised:
        expert_of(values, Path("x/expert.json"), "x")
    assert str(raised.value).startswith(f"x/expert.json: {line}".replace("[] :", "[]:"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "1"])
def test_what_is_no_json_table_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "expert.json").write_text(text)
    with pytest.raises(InputError, match=r"expert.json: (cannot be read as JSON|is a (list|int): must be a table)"):
        load_expert(str(tmp_path))


def test_a_folder_without_an_expert_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expert.json: cannot be read as JSON: No such file"):
        load_expert(str(tmp_path))


def test_flops_are_those_of_its_layers() -> None:
    """Of each convolution places x channels x (2 x inner + 1), of norms 7 an element, of leaky ReLUs 2."""
    layers = [  # places, in, out
        (384, 1, 4), (384, 4, 4), (96, 4, 6), (96, 6, 6), (24, 6, 9), (24, 9, 9),
        (96, 12, 6), (96, 6, 6), (384, 8, 4), (384, 4, 4),
    ]  # fmt: skip
    expected = sum(places * out * (2 * 9 * inner + 1 + 7 + 2) for places, inner, out in layers)
    expected += 96 * 6 * (2 * 9 + 1) + 384 * 4 * (2 * 6 + 1) + 384 * 2 * (2 * 4 + 1)  # drawn twice as large; the head
    found = sum(op.flops.at(Step(0, 0, 0, 3)) for op in _operators(unet(SMALL)).values())
    assert found == 3 * expected


def test_channels_are_split_and_gathered() -> None:
    """9 channels on two sockets are 5 and 4; what a convolution reads has them all."""
    graphs = [_operators(unet(SMALL, 2, rank)) for rank in range(2)]
    for rank, held in enumerate((5, 4)):
        conv, norm, gather = (graphs[rank][f"down2_{name}1"] for name in ("conv", "norm", "conv"))
        gather = graphs[rank]["down2_conv1_all_gather"]
        assert conv.matrix is not None and (conv.matrix.rows, conv.matrix.columns) == (9 * 9, held)
        assert norm.matrix is not None and norm.matrix.columns == held
        assert (gather.inputs[0].shape, gather.outputs[0].shape) == ((held * 24,), (9 * 24,))
    assert sum("all_gather" in name for name in graphs[0]) == 10 + 2 + 1


def test_a_layer_that_is_not_worth_its_gathering_is_done_by_every_socket() -> None:
    """Inner dimensions: 9 x channels of a convolution, channels of a transposed one and of the head."""
    split = {name for name in _operators(unet(SMALL, 2, worth=54)) if "all_gather" in name}
    expected = {f"{layer}_all_gather" for layer in ("down1_conv1", "down2_conv0", "down2_conv1", "up0_conv0")}
    assert split == expected | {"up0_conv1_all_gather", "up1_conv0_all_gather"}  # 54, 54, 81, 108, 54, 72
    assert unet(SMALL, 2, 0, worth=1e9) == unet(SMALL, 2, 1, worth=1e9)
    assert VisionExpert(SMALL, worth=54).graph(2, 1) == unet(SMALL, 2, 1, worth=54) != unet(SMALL, 2, 1)
    assert VisionExpert(SMALL, together=False).graph(2, 1) == unet(SMALL)


def test_skips_are_read_by_the_stage_of_their_size() -> None:
    operators = _operators(unet(SMALL))
    assert [tensor.name for tensor in operators["up0_concatenation"].inputs] == ["up0_drawn", "down1_activated1"]
    assert [tensor.name for tensor in operators["up1_concatenation"].inputs] == ["up1_drawn", "down0_activated1"]
    kept = {tensor.name for op in operators.values() for tensor in op.outputs if tensor.kept}
    assert kept == {"down0_activated1", "down1_activated1"}
    gathered = _operators(unet(SMALL, 2))
    assert gathered["up0_concatenation"].inputs[1].name == "down1_conv1_whole"
    kept = {tensor.name for op in gathered.values() for tensor in op.outputs if tensor.kept}
    assert kept == {"down0_conv1_whole", "down1_conv1_whole"}


def test_names_are_those_of_the_state_dict() -> None:
    assert module_of("down2_conv1", SMALL) == "unet.encoder.stages.2.0.convs.1.conv"
    assert module_of("up0_norm1", SMALL) == "unet.decoder.stages.0.convs.1.norm"
    assert module_of("up1", SMALL) == "unet.decoder.transpconvs.1"
    assert module_of("head", SMALL) == "unet.decoder.seg_layers.1"
    assert module_of("adapter_reduce", ADAPTER) == "adapter.reduce"


def test_weights_and_their_shares() -> None:
    held = {"unet.encoder.stages.0.0.convs.1.conv.weight": np.arange(4 * 4 * 9).reshape(4, 4, 3, 3)}
    held["unet.encoder.stages.0.0.convs.1.conv.bias"] = np.arange(4)
    whole = weights_of("down0_conv1", SMALL, held.__getitem__)
    assert whole.shape == (37, 4) and whole[10, 3] == 3 * 36 + 10 and whole[36, 2] == 2
    of_rank = _operators(unet(SMALL, 3, 0))["down0_conv1"]
    assert shard_of(of_rank, whole, 3, 0).tolist() == whole[:, :2].tolist()
    assert shard_of(_operators(unet(SMALL))["down0_conv1"], whole, 1, 0) is whole
    with pytest.raises(
        InputError, match=r"expert small: its checkpoint has no tensor unet.decoder.seg_layers.1.weight"
    ):
        weights_of("head", SMALL, held.__getitem__)
