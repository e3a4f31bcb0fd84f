"""Dice and IoU of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from samda.images import Mask


@dataclass(frozen=True)
class Score:
    """Of one image, or the mean of several; both are 1 where neither truth nor prediction has foreground."""

    dice: float
    iou: float


def score(found: Mask, truth: Mask) -> Score:
    """Of a prediction (H, W): Dice = 2 |A and B| / (|A| + |B|), IoU = |A and B| / |A or B|."""
    both, either = int((found & truth).sum()), int((found | truth).sum())
    if not either:
        return Score(1.0, 1.0)
    return Score(2 * both / (both + either), both / either)


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over images, each as heavy as any other."""
    return Score(fmean(one.dice for one in scores), fmean(one.iou for one in scores))
