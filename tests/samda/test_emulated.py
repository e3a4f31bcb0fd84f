"""Do emulated sockets segment images as PyTorch does, with a trained expert from its checkpoint?"""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch

from node.errors import InputError
from node.spec_file import load_machine
from samda.checkpoint import Expert, load_expert, save_expert
from samda.composition import Composition, EncoderFacts, composed, with_adapter
from samda.emulated import on_sockets
from samda.images import read_labelled
from samda.inference import logits
from samda.plan import Width
from samda.recipe import Images, Recipe
from samda.training import train
from tests.samda.drawn import Blurred, Kept, disc_cases, tiny_plan

MICROGRAPHS = Path("/work/shared/em")
WIDTH = Width(6, 24, 12, 3_000_000)
IMAGES = 10


def _machine(sockets):
    """Tiers as small as will do: a test has eight of each."""
    numbers = {"hbm.capacity": "256 MiB", "ddr.capacity": "8 MiB"}
    return replace(load_machine("sn40l-node", numbers), sockets=sockets)


def _cases():
    """Corners of micrographs; drawn images where there are none. Of different sizes: not all are whole patches."""
    if not MICROGRAPHS.exists():
        return disc_cases(IMAGES + 2)
    found = read_labelled(MICROGRAPHS / "vnc")[: IMAGES + 2]
    return [
        replace(case, pixels=case.pixels[:96, : 96 + 4 * at], mask=case.truth[:96, : 96 + 4 * at])
        for at, case in enumerate(found)
    ]


@pytest.fixture(scope="module")
def cases():
    return _cases()


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory):
    """Folders of a plain expert and of one that was adapted to the embedding of an encoder."""
    plan, folders = tiny_plan(cases, WIDTH), {}
    model = composed(plan.unet, Composition(), seed=1)
    train(model, plan, Images(cases[IMAGES:]), Recipe(25, seed=1, rate=1e-2, checks=1))
    folders["plain"] = tmp_path_factory.mktemp("plain")
    save_expert(folders["plain"], Expert(plan, Composition(), model))
    facts, embeddings = EncoderFacts.of(Blurred()), Kept(Blurred())
    for kind in ("adapter", "concat"):
        composition = Composition(kind, facts, 8)
        made = with_adapter(model, plan.unet, composition, seed=2)
        recipe = Recipe(5, seed=2, rate=1e-2, checks=1, parts=("decoder", "adapter"))
        train(made, plan, Images(cases[IMAGES:]), recipe, embeddings)
        folders[kind] = tmp_path_factory.mktemp(kind)
        save_expert(folders[kind], Expert(plan, composition, made))
    return folders


@pytest.mark.parametrize(
    ("kind", "sockets"), [("plain", 1), ("plain", 2), ("plain", 8), ("adapter", 1), ("adapter", 8), ("concat", 2)]
)
def test_masks_of_ten_images_are_those_of_pytorch(trained, cases, kind, sockets):
    """Whole images in patches that overlap; eight sockets hold three channels of the widest layer each."""
    expert = load_expert(trained[kind])
    embeddings = None if kind == "plain" else Kept(Blurred())
    foreground = 0
    with on_sockets(trained[kind], _machine(sockets)) as emulated:
        for case in cases[:IMAGES]:
            expected = logits(expert.model, expert.plan, case, embeddings)
            found = logits(emulated, expert.plan, case, embeddings)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
            mask = found[1] > found[0]
            assert torch.equal(mask, expected[1] > expected[0])
            foreground += int(mask.sum())
        assert emulated.expert.now > 0
    assert 0 < foreground < sum(case.pixels.size for case in cases[:IMAGES])


def test_patches_of_another_size_are_refused_in_one_line(trained):
    with on_sockets(trained["adapter"], _machine(1)) as emulated:
        side = emulated.expert.shape.patch[0]
        embedding = torch.zeros(1, 2, *emulated.expert.shape.bottleneck)
        with pytest.raises(InputError, match=rf"images are \(1, {side}, 8\): must be \(1, {side}, "):
            emulated(torch.zeros(1, 1, side, 8), embedding)
        with pytest.raises(InputError, match=r"embeddings are \(2, 1, 1\): must be"):
            emulated(torch.zeros(1, 1, *emulated.expert.shape.patch), torch.zeros(1, 2, 1, 1))
        with pytest.raises(InputError, match="takes embedding, image; given image"):
            emulated(torch.zeros(1, 1, *emulated.expert.shape.patch))


def test_a_checkpoint_of_another_expert_is_refused_in_one_line(trained, tmp_path):
    plain, adapter = trained["plain"], trained["adapter"]
    (tmp_path / "expert.json").write_bytes((adapter / "expert.json").read_bytes())
    with pytest.raises(InputError, match=r"expert\.safetensors: cannot be read"), on_sockets(tmp_path, _machine(1)):
        pass
    (tmp_path / "expert.safetensors").write_bytes((plain / "expert.safetensors").read_bytes())
    lacking = pytest.raises(InputError, match=r"its checkpoint has no tensor adapter\.mean")
    with lacking, on_sockets(tmp_path, _machine(1)):
        pass
