"""Is the estimate of a composition the sum of its parts, each as by itself, and does the encoder weigh most?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from node.composed import OWN, SHARED, ComposedEstimate, estimate_composed
from node.errors import InputError, OutOfMemoryError
from node.estimate import Call, estimate_one_pass
from node.models.composition import Composed, is_composition, load_composition
from node.models.unet import unet
from node.models.unet_shape import Composition, load_expert
from node.models.vision_expert import VisionExpert
from node.spec_file import load_machine

NODE, SOCKET = load_machine("sn40l-node"), load_machine("sn40l-socket")
ONE = Call(1, 1)
SAMDA = load_composition("samda")
TOML = 'name = "mine"\nimage = [{image}]\nencoder = "{encoder}"\nexpert = "{expert}"\nhidden = {hidden}\n'


def _written(tmp_path: Path, image: str = "512, 300", encoder: str = "sam-vit-b", hidden: object = 32) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TOML.format(image=image, encoder=encoder, expert="samda-unet", hidden=hidden))
    return path


@pytest.fixture(scope="module")
def found() -> ComposedEstimate:
    return estimate_composed(NODE, SAMDA, Call(1, 1, 2))


def test_the_encoder_weighs_most_and_an_expert_is_switched_for_nearly_nothing(found: ComposedEstimate) -> None:
    """The opposite of Samba-CoE, whose experts take milliseconds to come from DDR."""
    encoder, adapter, unet = found.parts
    assert [part.name for part in found.parts] == ["encoder", "adapter", "U-Net"]
    assert encoder.weight_bytes > 40 * (unet.weight_bytes + adapter.weight_bytes)
    assert encoder.seconds > 5 * (unet.seconds + adapter.seconds) and adapter.seconds > 0
    switching = unet.activation_s + adapter.activation_s
    assert switching < 40e-6 and switching < (unet.seconds + adapter.seconds) / 4
    llama = 13_476_839_424 / NODE.sockets / (NODE.ddr.bandwidth * NODE.ddr.efficiency)  # of Llama-2-7B in BF16
    assert llama > 300 * switching


def test_parts_are_what_each_takes_by_itself(found: ComposedEstimate) -> None:
    encoder, adapter, unet = found.parts
    assert encoder.seconds == estimate_one_pass(NODE, SAMDA.encoder, Call(1, 1, 2)).prefill_s
    patches = Call(1, 1, 18)
    assert (found.patches, found.sharing) == (9, OWN)
    assert unet.seconds == estimate_one_pass(NODE, VisionExpert(SAMDA.plain, together=False), patches).prefill_s
    whole = estimate_one_pass(NODE, VisionExpert(SAMDA.shape, together=False), patches).prefill_s
    assert adapter.seconds == pytest.approx(whole - unet.seconds)
    assert found.total_s == found.call_overhead_s + encoder.seconds + whole
    assert (unet.weight_bytes, unet.socket_bytes) == (3_887_556, 3_887_556)  # every socket has all of it
    assert unet.activation_s == pytest.approx(3_887_556 / (NODE.ddr.bandwidth * NODE.ddr.efficiency), rel=1e-6)
    assert unet.flops == pytest.approx(18 * 6.111e9, rel=1e-3)
    assert encoder.weight_bytes == 2 * 89_670_912 > 5 * encoder.socket_bytes


def test_sockets_share_patches_where_that_is_quicker() -> None:
    """A network that is wider, and one patch for eight sockets."""
    wide = replace(
        load_expert("samda-unet"),
        features=(256, 512),
        strides=(1, 2),
        convs_encoder=(2, 2),
        convs_decoder=(2,),
        composition=Composition("adapter", 256, 64),
    )
    composed = Composed("wide", (256, 256), SAMDA.encoder, wide)
    found = estimate_composed(NODE, composed, ONE)
    assert (found.patches, found.sharing) == (1, SHARED)
    own = estimate_one_pass(NODE, VisionExpert(composed.shape, together=False), ONE).prefill_s
    assert sum(part.seconds for part in found.parts[1:]) < own
    assert found.parts[2].socket_bytes < found.parts[2].weight_bytes / 4
    worth = 2 * 192 * 1040 * NODE.compute.clock / 400e9  # FLOPs a byte: the drawn layer (512) is done by every socket
    assert 1594 < worth < 1596
    graph = VisionExpert(composed.plain, worth=worth).graph(8)
    assert found.parts[2].socket_bytes == graph.weight_bytes > unet(composed.plain, 8).weight_bytes
    assert estimate_composed(SOCKET, composed, ONE).sharing == OWN


@pytest.mark.parametrize(
    ("image", "patches"), [((256, 256), 1), ((100, 256), 1), ((257, 256), 2), ((384, 512), 6), ((512, 513), 12)]
)
def test_patches_overlap_by_half_at_least(image: tuple[int, int], patches: int) -> None:
    assert replace(SAMDA, image=image).patches == patches


def test_an_embedding_has_a_place_for_each_of_the_encoders_patches() -> None:
    assert SAMDA.shape.composition == Composition("adapter", 256, 64, (16, 16))
    assert SAMDA.plain == load_expert("samda-unet")


def test_a_composition_of_a_file(tmp_path: Path) -> None:
    path = _written(tmp_path)
    found = load_composition(str(path))
    assert is_composition(str(path)) and is_composition("samda") and not is_composition("samda-unet")
    assert (found.name, found.image, found.encoder.name) == ("mine", (512, 300), "sam-vit-b")
    assert found.shape.composition.hidden == 32


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"image": "512"}, r"image = \[512\]: must be height and width"),
        ({"image": "512, 0"}, r"image = \[512, 0\]: must be height and width"),
        ({"image": "2000, 512"}, r"image = \[2000, 512\]: must be 1024 x 1024 at most, what sam-vit-b sees at once"),
        ({"hidden": -1}, "hidden = -1: must be a positive int"),
        ({"encoder": "samda-unet"}, "encoder = 'samda-unet': must be an image encoder, built in or by its path"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, changed: dict[str, object], line: str) -> None:
    path = _written(tmp_path, **changed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"^{path}: {line}"):
        load_composition(str(path))


def test_an_expert_of_another_encoder_is_refused(tmp_path: Path) -> None:
    """Made with HED's embeddings; a path is from the folder of the file that has it."""
    unet = {
        "input_channels": 1, "features": [4, 8], "strides": [1, 2], "kernel": 3, "convs_encoder": [1, 1],
        "convs_decoder": [1], "classes": 2, "norm_epsilon": 1e-5, "leaky_slope": 0.01,
    }  # fmt: skip
    joined = {"kind": "concat", "encoder": {"channels": 512}, "adapter": {"hidden": 4}}
    record = {"format": 1, "kind": "samda-expert", "unet": unet, "composition": joined, "patch": [64, 64]}
    (tmp_path / "hed").mkdir()
    (tmp_path / "hed" / "expert.json").write_text(json.dumps(record))
    path = _written(tmp_path)
    path.write_text(path.read_text().replace("samda-unet", "hed"))
    with pytest.raises(InputError, match="expert hed takes embeddings of 512 channels: must be 256, as sam-"):
        load_composition(str(path))


def test_weights_that_find_no_room_are_refused() -> None:
    """Each by itself would fit."""
    small = load_machine("sn40l-node", {"hbm.capacity": "35 MB"})
    with pytest.raises(OutOfMemoryError, match="weights of the encoder and of one expert"):
        estimate_composed(small, SAMDA, ONE)
