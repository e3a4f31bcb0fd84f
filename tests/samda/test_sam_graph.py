"""Does the operator graph of SAM's encoder compute what SAM's own code does, on however many sockets?"""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

from dataclasses import replace

from cluster.content import PassExpert
from cluster.images import pass_group
from node.dataflow.fusion import LEVELS
from node.models.encoder import Encoder, load_encoder
from node.models.encoder_shape import EncoderShape
from node.options import RuntimeOptions
from node.spec_file import load_machine
from samda.encoders.sam_code import VARIANTS, Variant, image_encoder

# 5 x 5 patches in windows of 2, a window layer alone, two in a row, and one that is global and last
SMALL = Variant(width=24, depth=5, heads=3, global_blocks=(1, 4), pixels=80, patch=16, window=2, channels=8)
PIXELS = 256


def random_model(variant):
    """SAM's own module, tables of positions not zero; of ViT-B as large as PyTorch makes weights at first."""
    torch.manual_seed(5)
    model = image_encoder(variant).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "pos" in name or parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape))
        elif variant is SMALL:
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


def shape_of(variant):
    return EncoderShape(
        name="small", layers=variant.depth, hidden=variant.width, heads=variant.heads, ffn=4 * variant.width,
        global_layers=variant.global_blocks, window=variant.window, image=variant.pixels, patch=variant.patch,
        neck=variant.channels,
    )  # fmt: skip


def tensors_of(model):
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return tensors.__getitem__


def emulated(shape, model, images, sockets, options):
    machine = replace(load_machine("sn40l-node"), sockets=sockets)
    expert = PassExpert(Encoder(shape), partial(tensors_of, model))
    with pass_group(machine, [expert], options) as group:
        return group.through(0, {"pixels": images.reshape(len(images), -1).numpy()})


@pytest.fixture(scope="module")
def small():
    return random_model(SMALL)


@pytest.mark.parametrize(
    ("sockets", "level"), [*((1, level) for level in LEVELS), (2, "fused"), (3, "unfused"), (4, "looped"), (8, "fused")]
)
def test_a_small_encoder_is_sams(small, sockets, level):
    """3 heads: on 2 sockets they are uneven, from 4 on some socket has none. Three images, two at once."""
    images = torch.randn(3, 3, SMALL.pixels, SMALL.pixels)
    expected = small(images).reshape(3, -1).numpy()
    found = emulated(shape_of(SMALL), small, images, sockets, RuntimeOptions(batch=2, fusion=level))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_sam_vit_b_is_sams():
    """At 256 pixels: 16 x 16 patches, windows of 14 filled up to 28 x 28; 12 heads on 8 sockets are uneven."""
    shape = replace(load_encoder("sam-vit-b").shape, image=PIXELS)
    model = random_model(replace(VARIANTS["sam-vit-b"], pixels=PIXELS))
    images = torch.randn(1, 3, PIXELS, PIXELS)
    expected = model(images).reshape(1, -1).numpy()
    assert np.abs(expected).max() > 1
    for sockets in (1, 2, 8):
        found = emulated(shape, model, images, sockets, RuntimeOptions(fusion="unfused" if sockets == 2 else "fused"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
