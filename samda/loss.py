"""Cross-entropy and Dice, at every stage of the decoder.

After nnU-Net (Isensee et al. 2021, ``DC_and_CE_loss``, ``DeepSupervisionWrapper``): soft Dice over the batch, of the
foreground alone, smoothed by 1e-5; both losses summed; each stage half as heavy as the finer one, the coarsest not at
all. Ours: pixels of which a pseudo-label is not certain count in neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5


def stage_weights(stages: int) -> list[float]:
    """1, 1/2, 1/4, ... and 0 for the coarsest of several, that add up to 1."""
    weights = [2.0**-stage for stage in range(stages)]
    if stages > 1:
        weights[-1] = 0.0
    return [weight / sum(weights) for weight in weights]


def segmentation_loss(logits: Sequence[Tensor], masks: Tensor, certain: Tensor) -> Tensor:
    """The loss of logits (N, 2, h, w), the finest first, on masks (N, H, W) where ``certain`` (N, H, W) is 1."""
    total = torch.zeros(())
    for one, weight in zip(logits, stage_weights(len(logits)), strict=True):
        if weight:
            at = one.shape[2:]
            total = total + weight * _loss(one, _at_size(masks.float(), at).long(), _at_size(certain, at))
    return total


def _at_size(layer: Tensor, size: Sequence[int]) -> Tensor:
    return layer if layer.shape[1:] == size else functional.interpolate(layer[:, None], size, mode="nearest")[:, 0]


def _loss(logits: Tensor, masks: Tensor, certain: Tensor) -> Tensor:
    entropy = functional.cross_entropy(logits, masks, reduction="none")
    foreground = logits.softmax(1)[:, 1] * certain
    truth = masks * certain
    dice = (2 * (foreground * truth).sum() + SMOOTH) / (foreground.sum() + truth.sum() + SMOOTH).clamp(min=1e-8)
    return (entropy * certain).sum() / certain.sum().clamp(min=1) - dice
