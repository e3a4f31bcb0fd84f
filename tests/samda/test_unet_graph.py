"""Does the operator graph of an expert on disk compute what PyTorch does, and hold as many parameters?"""

from dataclasses import asdict, replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch

from cluster.checkpoints.safetensors_file import read_safetensors
from node.dataflow.batch import Batch
from node.models.unet import unet
from node.models.unet_shape import UNetShape, load_expert
from node.models.unet_weights import shard_of, weights_of
from samda.checkpoint import Expert, save_expert
from samda.composition import Composition, EncoderFacts, composed
from samda.fingerprint import Normalisation
from samda.plan import WIDTHS, Plan, unet_shape
from samda.plan import UNetShape as Planned
from samda.unet import parameters
from tests.functional import group

IMAGES, CHANNELS = 2, 5
SMALL = Planned((4, 6, 9), (1, 2, 2), (2, 1, 2), (1, 2))
ENCODER = EncoderFacts("random", "0" * 64, CHANNELS, 8)


def _expert(kind, planned=SMALL, patch=(32, 48)):
    """Random weights, an adapter's too, so that it adds something."""
    composition = Composition() if kind == "plain" else Composition(kind, ENCODER, 7)
    model = composed(planned, composition, seed=3)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    if model.adapter is not None:
        model.adapter.standardise_by([3 * torch.rand(CHANNELS, 6, 6) - 1])
    return Expert(Plan(planned, patch, 2, Normalisation("image", 0, 1, 0, 1)), composition, model.eval())


def _given(shape):
    torch.manual_seed(2)
    images = torch.randn(IMAGES, shape.input_channels, *shape.patch)
    plain = shape.composition.kind == "plain"
    return images, None if plain else torch.randn(IMAGES, CHANNELS, *shape.embedding)


def _emulated(folder, shape, given, degree, level, worth):
    """Logits of every rank, of a checkpoint as it lies in a folder."""
    stored = read_safetensors(folder / "expert.safetensors")
    sockets = group(
        lambda rank: unet(shape, degree, rank, worth=worth),
        lambda rank, _symbol, _layer, op: shard_of(
            op, weights_of(op.name, shape, lambda name: stored[name].read()), degree, rank
        ),
        degree,
        level,
    )
    for content in sockets.contents:
        entering = zip(("image", "embedding"), given, strict=True)
        content.memory |= {name: array.flatten(1).numpy() for name, array in entering if array is not None}
    sockets.run(Batch((0,) * IMAGES, (0,) * IMAGES))
    last = sockets.graphs[0].blocks[-1].operators[-1].outputs[0]
    found = [
        value for content in sockets.contents for name, value in content.memory.items() if name.endswith(last.name)
    ]
    assert len(found) == degree and last.name == "logits"
    return found


@pytest.mark.parametrize("kind", ["plain", "concat", "adapter"])
@pytest.mark.parametrize(
    ("degree", "level", "worth"),
    [(1, "unfused", 0), (1, "fused", 0), (2, "looped", 0), (3, "conventional", 0), (8, "fused", 0), (8, "fused", 54)],
)
def test_logits_are_those_of_pytorch(tmp_path, kind, degree, level, worth):
    """Eight sockets have no channel of some layers; with a worth, some layers are done by all."""
    expert = _expert(kind)
    save_expert(tmp_path, expert)
    shape = load_expert(str(tmp_path))
    given = _given(shape)
    with torch.no_grad():
        expected = expert.model(*given)[0].flatten(1).numpy()
    for found in _emulated(tmp_path, shape, given, degree, level, worth):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize("kind", ["concat", "adapter"])
@pytest.mark.parametrize("places", [(4, 6), (13, 9)])
def test_an_embedding_of_another_size_is_drawn_on_the_bottleneck(tmp_path, kind, places):
    expert = _expert(kind)
    save_expert(tmp_path, expert)
    shape = load_expert(str(tmp_path))
    shape = replace(shape, composition=replace(shape.composition, places=places))
    given = _given(shape)
    with torch.no_grad():
        expected = expert.model(*given)[0].flatten(1).numpy()
    (found,) = _emulated(tmp_path, shape, given, 1, "fused", 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_strides_and_kernels_of_other_sizes(tmp_path):
    planned = Planned((4, 6, 5, 3), (2, 3, 1, 2), (1, 1, 1, 1), (1, 1, 1), input_channels=3, classes=4, kernel=5)
    expert = _expert("plain", planned, (24, 36))
    save_expert(tmp_path, expert)
    shape = load_expert(str(tmp_path))
    given = _given(shape)
    with torch.no_grad():
        expected = expert.model(*given)[0].flatten(1).numpy()
    for found in _emulated(tmp_path, shape, given, 2, "fused", 0):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "concat", "adapter"])
@pytest.mark.parametrize("planned", [SMALL, Planned((16, 32, 64, 128, 256), (1, 2, 2, 2, 2), (2,) * 5, (2,) * 4)])
def test_parameters_are_as_many(tmp_path, kind, planned):
    """To the last one; means and deviations of an embedding are no parameters to PyTorch."""
    expert = _expert(kind, planned)
    save_expert(tmp_path, expert)
    shape = load_expert(str(tmp_path))
    operators = [op for block in unet(shape).blocks for op in block.operators if op.matrix is not None]
    held = sum(op.matrix.elements for op in operators if op.name != "adapter_standardise")
    assert held + shape.supervision_parameters == parameters(expert.model)
    heads = expert.model.unet.decoder.seg_layers
    assert shape.supervision_parameters == sum(map(parameters, heads)) - parameters(heads[-1])


def test_the_built_in_expert_is_what_the_planner_makes_of_micrographs():
    shape = load_expert("samda-unet")
    planned = asdict(unet_shape((256, 256), WIDTHS["small"]))
    assert {key: getattr(shape, key) for key in planned} == planned
    assert isinstance(shape, UNetShape) and shape.patch == (256, 256)
