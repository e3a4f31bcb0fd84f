"""What a training step sees: patches drawn from images, turned, scaled and changed in brightness.

After nnU-Net (Isensee et al. 2021, ``nnUNetTrainer``): every second patch of a batch of two is centred on foreground;
scale, noise, brightness, contrast and gamma with its probabilities and ranges. Ours: turns are the eight of the square,
so that a whole image has eight embeddings, which can be kept; intensities are changed for the U-Net alone, the generic
encoder sees the image as it is; blur and low resolution are left out. Beyond its edge an image is mirrored.

Every draw comes from (seed, step) alone, so that a run which goes on draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from samda.encoder import Cached
from samda.images import Case
from samda.plan import Plan

TURNS = 8
FOREGROUND = 1 / 3  # share of patches that are centred on foreground, at the least
SCALED, SCALES = 0.2, (0.7, 1.4)


@dataclass(frozen=True)
class Batch:
    """N patches. ``images``: (N, 1, H, W), normalised; ``masks``: (N, H, W), 0 or 1; ``certain``: (N, H, W), 0 or 1.

    ``embedding``: (N, C, h, w), a place for each of the bottleneck's; None for a plain expert.
    """

    images: Tensor
    masks: Tensor
    certain: Tensor
    embedding: Tensor | None


class Drawing:
    """Draws batches from images; ``embeddings`` gives those of whole images, None for a plain expert."""

    def __init__(self, cases: Sequence[Case], plan: Plan, embeddings: Cached | None, seed: int) -> None:
        self.plan, self.embeddings, self.seed = plan, embeddings, seed
        self.cases = cases
        self.normalised = [torch.from_numpy(plan.normalisation.apply(case.pixels)) for case in cases]
        self.inside = [np.argwhere(case.truth & _certain(case)) for case in cases]
        self.hashes = [case.hash for case in cases]

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        random = np.random.default_rng((self.seed, step))
        size = self.plan.batch
        forced = size - round(size * (1 - FOREGROUND))
        drawn = [self._patch(random, number >= size - forced) for number in range(size)]
        images, masks, certain, embeddings = zip(*drawn, strict=True)
        joined = None if embeddings[0] is None else torch.cat([one for one in embeddings if one is not None])
        return Batch(torch.stack(images)[:, None], torch.stack(masks), torch.stack(certain), joined)

    def _patch(self, random: np.random.Generator, on_foreground: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        which = int(random.integers(len(self.cases)))
        case, turn = self.cases[which], int(random.integers(TURNS))
        scale = random.uniform(*SCALES) if random.random() < SCALED else 1.0
        layers = torch.stack(
            (self.normalised[which], torch.from_numpy(case.truth).float(), torch.from_numpy(_certain(case)).float())
        )
        centre = self._centre(random, which, on_foreground)
        marked = turned(layers, turn)
        middle = _turned_place(centre, case.pixels.shape, turn)
        extent = [side * scale for side in self.plan.patch]
        top, left = (_start(at, side, of) for at, side, of in zip(middle, extent, marked.shape[1:], strict=True))
        box = (top, left, *extent)
        image = window(marked[:1], box, self.plan.patch, "bilinear")[0]
        mask, certain = window(marked[1:], box, self.plan.patch, "nearest")
        embedding = None
        if self.embeddings is not None:
            stride = self.plan.unet.stride
            places = (self.plan.patch[0] // stride, self.plan.patch[1] // stride)
            whole = embed(self.embeddings, case, turn, self.hashes[which])
            embedding = window(whole, box, places, "bilinear", self.embeddings.encoder.stride)[None]
        return changed(image, random), mask.long(), certain, embedding

    def _centre(self, random: np.random.Generator, which: int, on_foreground: bool) -> tuple[int, int]:
        inside, shape = self.inside[which], self.cases[which].pixels.shape
        if on_foreground and len(inside):
            row, column = inside[random.integers(len(inside))]
        else:
            row, column = random.integers(shape[0]), random.integers(shape[1])
        return int(row), int(column)


def embed(embeddings: Cached, case: Case, turn: int, image_hash: str) -> Tensor:
    """The embedding (C, h, w) of a whole image, turned."""
    pixels = turned(torch.from_numpy(case.pixels)[None, None], turn).contiguous()
    return embeddings.encode(pixels, [f"{image_hash}-turn{turn}"])[0]


def turned(layers: Tensor, turn: int) -> Tensor:
    """(..., H, W) turned by a quarter ``turn % 4`` times, then for 4 and above mirrored left to right."""
    layers = torch.rot90(layers, turn % 4, (-2, -1))
    return layers.flip(-1) if turn >= 4 else layers


def window(layers: Tensor, box: Sequence[float], size: tuple[int, int], mode: str, stride: int = 1) -> Tensor:
    """(C, h, w) to (C, *size): what lies in a box (top, left, height, width) of pixels, mirrored beyond the edge.

    ``stride``: pixels to a place of ``layers``. A box of whole places and of ``size`` is what is there, unchanged but
    for rounding.
    """
    top, left, height, width = (length / stride for length in box)
    rows = (top + (torch.arange(size[0], dtype=torch.float64) + 0.5) * (height / size[0])) / layers.shape[1]
    columns = (left + (torch.arange(size[1], dtype=torch.float64) + 0.5) * (width / size[1])) / layers.shape[2]
    grid = torch.stack(torch.meshgrid(2 * columns - 1, 2 * rows - 1, indexing="xy"), -1).to(layers.dtype)
    sampled = functional.grid_sample(
        layers[None], grid[None], mode=mode, padding_mode="reflection", align_corners=False
    )
    return sampled[0]


def changed(image: Tensor, random: np.random.Generator) -> Tensor:
    """A normalised patch (H, W) with noise, and another brightness, contrast and gamma, each now and then."""
    if random.random() < 0.1:
        noise = random.normal(0, np.sqrt(random.uniform(0, 0.1)), tuple(image.shape))
        image = image + torch.from_numpy(noise.astype(np.float32))
    if random.random() < 0.15:
        image = image * random.uniform(0.75, 1.25)
    if random.random() < 0.15:
        mean, low, high = image.mean(), image.min(), image.max()
        image = ((image - mean) * random.uniform(0.75, 1.25) + mean).clamp(low, high)
    if random.random() < 0.1:
        image = -gamma(-image, random.uniform(0.7, 1.5))
    if random.random() < 0.3:
        image = gamma(image, random.uniform(0.7, 1.5))
    return image


def gamma(image: Tensor, exponent: float) -> Tensor:
    """Values, as shares of their range, to a power; mean and deviation stay."""
    mean, deviation, low = image.mean(), image.std(), image.min()
    span = (image.max() - low).clamp(min=1e-7)
    bent = ((image - low) / span) ** exponent * span + low
    return (bent - bent.mean()) / bent.std().clamp(min=1e-7) * deviation + mean


def _certain(case: Case) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.ones(case.pixels.shape, np.bool_) if case.certain is None else case.certain


def _turned_place(place: tuple[int, int], shape: Sequence[int], turn: int) -> tuple[int, int]:
    """Where a pixel of an image of that shape is after ``turned``."""
    row, column = place
    height, width = shape
    for _ in range(turn % 4):
        row, column, height, width = width - 1 - column, row, width, height
    return (row, width - 1 - column) if turn >= 4 else (row, column)


def _start(middle: int, side: float, of: int) -> float:
    """Where a patch begins: whole pixels, inside the image where it is large enough, in its middle otherwise."""
    if side >= of:
        return (of - side) / 2
    return float(np.clip(round(middle - side / 2), 0, int(of - side)))
