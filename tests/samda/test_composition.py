"""Is an expert composed with an embedding what it is said to be, and what of it learns?"""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch

from samda.composition import PARTS, Composition, EncoderFacts, composed, with_adapter
from samda.plan import Width, unet_shape
from tests.samda.drawn import Blurred

SHAPE = unet_shape((32, 32), Width(4, 16, 8, 0))
FACTS = EncoderFacts.of(Blurred())
IMAGES = torch.linspace(0, 1, 2 * 32 * 32).reshape(2, 1, 32, 32) ** 2
EMBEDDING = Blurred().encode(IMAGES)


def _made(kind: str, seed: int = 3):
    return composed(SHAPE, Composition() if kind == "plain" else Composition(kind, FACTS, hidden=5), seed)


def by_hand(features: list[int], classes: int = 2) -> int:
    """Parameters of a U-Net: two convolutions of 3 x 3 a stage, each with a bias and a norm."""

    def block(inputs: int, outputs: int) -> int:
        return sum(9 * one * outputs + 3 * outputs for one in (inputs, outputs))

    down = sum(block(one, other) for one, other in zip([1, *features], features, strict=False))
    up = sum(4 * below * skip + skip + block(2 * skip, skip) + classes * (skip + 1)
             for skip, below in pairwise(features))  # fmt: skip
    return down + up


@pytest.mark.parametrize("features", [[4, 8, 16], [16, 32, 64, 128, 256]])
def test_parameters_are_those_counted_by_hand(features):
    from samda.unet import parameters, unet  # noqa: PLC0415

    shape = unet_shape((12 << (len(features) - 1),) * 2, Width(features[0], features[-1], 12, 0))
    assert list(shape.features) == features and parameters(unet(shape)) == by_hand(features)


def test_an_adapter_adds_nothing_before_it_has_learned():
    plain = _made("plain")
    joined = with_adapter(plain, SHAPE, Composition("adapter", FACTS, hidden=5), seed=9)
    for one, other in zip(plain(IMAGES), joined(IMAGES, EMBEDDING), strict=True):
        assert torch.equal(one, other)
    joined.adapter.output.bias.data += 1  # what it gives does count
    assert not torch.equal(plain(IMAGES)[0], joined(IMAGES, EMBEDDING)[0])


def test_an_adapter_learns_from_the_first_step():
    joined = with_adapter(_made("plain"), SHAPE, Composition("adapter", FACTS, hidden=5), seed=9)
    joined(IMAGES, EMBEDDING)[0].square().mean().backward()
    assert joined.adapter.output.weight.grad.abs().max() > 0


def test_an_adapter_is_two_convolutions_of_the_standardised_embedding():
    adapter = _made("adapter").adapter
    adapter.standardise_by(list(EMBEDDING))
    torch.nn.init.normal_(adapter.output.weight)
    bottleneck = torch.ones(2, 16, 4, 4)
    mean, deviation = EMBEDDING.mean((0, 2, 3), keepdim=True), EMBEDDING.std((0, 2, 3), correction=0, keepdim=True)
    reduced = torch.nn.functional.conv2d((EMBEDDING - mean) / deviation, adapter.reduce.weight, adapter.reduce.bias)
    bent = torch.where(reduced > 0, reduced, 0.01 * reduced)
    added = torch.nn.functional.conv2d(bent, adapter.output.weight, adapter.output.bias, padding=1)
    assert torch.allclose(adapter(bottleneck, EMBEDDING), bottleneck + added, atol=1e-5)


def test_concatenation_sees_both_and_keeps_the_bottlenecks_shape():
    adapter = _made("concat").adapter
    bottleneck = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    found = adapter(bottleneck, EMBEDDING)
    weight = adapter.output.weight[:, :, 0, 0]
    reduced = adapter.reduce(EMBEDDING)
    expected = torch.einsum("fc,nchw->nfhw", weight[:, :16], bottleneck)
    expected = expected + torch.einsum("fc,nchw->nfhw", weight[:, 16:], reduced)
    assert torch.allclose(found, expected + adapter.output.bias[:, None, None], atol=1e-5)


def test_an_embedding_of_another_size_is_resized_bilinearly():
    adapter, coarse = _made("concat").adapter, torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(1, 2, 2, 2)
    row = torch.tensor([0, 0.25, 0.75, 1])  # centres of four in the places of two
    fine = (row[None] + 2 * row[:, None]).expand(1, 2, 4, 4)
    bottleneck = torch.zeros(1, 16, 4, 4)
    assert torch.allclose(adapter(bottleneck, coarse), adapter(bottleneck, fine), atol=1e-6)


def test_equal_seeds_give_equal_unets_in_every_composition():
    plain, concat = _made("plain").unet.state_dict(), _made("concat").unet.state_dict()
    assert all(torch.equal(plain[name], concat[name]) for name in plain)
    other = _made("plain", seed=4).unet.state_dict()
    assert any(not torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize("parts", [PARTS, ("decoder", "adapter"), ("encoder",), ("adapter",)])
def test_what_is_frozen_is_not_trained_and_all_else_is(parts):
    model = _made("adapter")
    count = len(model.train_only(parts))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    heads = {"encoder": "unet.encoder.", "decoder": "unet.decoder.", "adapter": "adapter."}
    expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(heads[part] for part in parts))}
    assert trained == expected and count == len(expected) > 0
