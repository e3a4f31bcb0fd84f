"""Whole images through a network that sees patches.

After nnU-Net (Isensee et al. 2021, ``sliding_window_prediction``): patches that overlap by half at least, weighted by a
Gaussian of an eighth of their side. Ours: an image smaller than a patch is mirrored beyond its edges; images are not
flipped and averaged over. The generic encoder sees the image once and whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from samda.encoder import Cached
from samda.images import Case, Mask, Pixels
from samda.patches import embed, window
from samda.plan import Plan

OVERLAP, SIGMA = 0.5, 1 / 8
AT_ONCE = 4  # patches of a pass


class Network(Protocol):
    """What patches go through: ``samda.composition.Composed``, or the same on emulated sockets."""

    def eval(self) -> object:
        """Infer from now on."""

    def __call__(self, images: Tensor, embedding: Tensor | None = None) -> list[Tensor]:
        """Logits (N, classes, H, W) of images (N, 1, H, W), the finest first."""


@torch.no_grad()
def probabilities(model: Network, plan: Plan, case: Case, embeddings: Cached | None) -> Pixels:
    """The probability of foreground (H, W), of an image of any size."""
    return logits(model, plan, case, embeddings).softmax(0)[1].numpy()


@torch.no_grad()
def logits(model: Network, plan: Plan, case: Case, embeddings: Cached | None) -> Tensor:
    """Logits (2, H, W) of an image: means of those of its patches, by their weights."""
    image = torch.from_numpy(plan.normalisation.apply(case.pixels))[None]
    height, width = case.pixels.shape
    whole = None if embeddings is None else embed(embeddings, case, 0, case.hash)
    corners = [(top, left) for top in starts(height, plan.patch[0]) for left in starts(width, plan.patch[1])]
    extent = (max(height, plan.patch[0]), max(width, plan.patch[1]))
    total, weight, importance = torch.zeros(2, *extent), torch.zeros(extent), gaussian(plan.patch)
    shift = (min(0, corners[0][0]), min(0, corners[0][1]))
    model.eval()
    for first in range(0, len(corners), AT_ONCE):
        some = corners[first : first + AT_ONCE]
        patches = torch.stack([_patch(image, corner, plan) for corner in some])
        around = None if whole is None or embeddings is None else _embeddings(whole, some, plan, embeddings)
        for (top, left), found in zip(some, model(patches, around)[0], strict=True):
            rows = slice(top - shift[0], top - shift[0] + plan.patch[0])
            columns = slice(left - shift[1], left - shift[1] + plan.patch[1])
            total[:, rows, columns] += found * importance
            weight[rows, columns] += importance
    mean = total / weight
    return mean[:, -shift[0] : height - shift[0], -shift[1] : width - shift[1]]


def segment(model: Network, plan: Plan, case: Case, embeddings: Cached | None) -> Mask:
    """The foreground (H, W) of an image."""
    found = logits(model, plan, case, embeddings)
    return (found[1] > found[0]).numpy()


def starts(side: int, patch: int) -> list[int]:
    """Where patches begin along a side: evenly, overlapping by half at least; before 0 where the side is shorter."""
    if side <= patch:
        return [-((patch - side) // 2)]
    steps = math.ceil((side - patch) / (patch * OVERLAP)) + 1
    return [round((side - patch) * step / (steps - 1)) for step in range(steps)]


def gaussian(patch: Sequence[int]) -> Tensor:
    """Weights (H, W) of a patch's pixels: 1 in the middle, never 0."""
    along = [np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side * SIGMA)) ** 2) for side in patch]
    weights = np.outer(along[0], along[1])
    weights /= weights.max()
    return torch.from_numpy(np.maximum(weights, weights[weights > 0].min()).astype(np.float32))


def _patch(image: Tensor, corner: tuple[int, int], plan: Plan) -> Tensor:
    top, left = corner
    if min(corner) >= 0 and all(
        at + side <= of for at, side, of in zip(corner, plan.patch, image.shape[1:], strict=True)
    ):
        return image[:, top : top + plan.patch[0], left : left + plan.patch[1]]
    return window(image, (top, left, *plan.patch), plan.patch, "bilinear")


def _embeddings(whole: Tensor, corners: Sequence[tuple[int, int]], plan: Plan, embeddings: Cached) -> Tensor:
    places = (plan.patch[0] // plan.unet.stride, plan.patch[1] // plan.unet.stride)
    stride = embeddings.encoder.stride
    return torch.stack([window(whole, (*corner, *plan.patch), places, "bilinear", stride) for corner in corners])
