"""Images drawn for tests: dark discs, the foreground, on a bright noisy ground; plans and encoders as small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from samda.fingerprint import fingerprint
from samda.images import Case
from samda.plan import Plan, Width, make_plan

TINY = Width(4, 8, 16, 2_000_000)


def disc_case(seed: int, height: int = 64, width: int = 64, contrast: float = 0.5) -> Case:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(3):
        row, column, radius = random.integers(8, height - 8), random.integers(8, width - 8), random.integers(4, 8)
        mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    pixels = 0.7 - contrast * mask + random.normal(0, 0.03, mask.shape)
    return Case(f"{seed:03}", np.clip(pixels, 0, 1).astype(np.float32), mask)


def disc_cases(count: int, first: int = 0, contrast: float = 0.5) -> list[Case]:
    return [disc_case(first + number, contrast=contrast) for number in range(count)]


def tiny_plan(cases: list[Case], width: Width = TINY) -> Plan:
    return make_plan(fingerprint(cases), width)


def write_folder(folder: Path, cases: list[Case], masks: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        Image.fromarray(np.round(case.pixels * 255).astype(np.uint8)).save(folder / f"{case.name}.png")
        if masks:
            Image.fromarray(case.truth.astype(np.uint8) * 255).save(folder / f"{case.name}_mask.png")
    return folder


class Blurred:
    """An encoder of two channels: means of blocks of 8 x 8 pixels, and their squares."""

    name, hash, channels, stride = "blurred", "0" * 64, 2, 8
    note = None

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool2d(images, 8, ceil_mode=True)
        return torch.cat((means, means**2), 1)


class Kept:
    """Embeddings by key, in memory; ``asked`` are the keys in the order in which they were made."""

    def __init__(self, encoder: Blurred) -> None:
        self.encoder, self.found, self.asked = encoder, {}, []

    def encode(self, images: torch.Tensor, keys: list[str]) -> torch.Tensor:
        for image, key in zip(images, keys, strict=True):
            if key not in self.found:
                self.found[key] = self.encoder.encode(image[None])[0]
                self.asked.append(key)
        return torch.stack([self.found[key] for key in keys])
