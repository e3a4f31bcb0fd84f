"""A sheet of overlays: images, their truth, and what each arm of an experiment found, as one PNG to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from node.errors import InputError
from samda.images import Mask, Pixels
from samda.scores import mean_score, score

TRUTH, FOUND = (
    (86, 180, 233),
    (230, 159, 0),
)  # Okabe and Ito's sky blue and orange: told apart by everybody, and from grey
TINT = 0.3  # of the colour, over what only one of two masks has
PANEL = 300  # pixels across
GAP, LETTERS, LINE = 8, 15, 22
BACKGROUND, INK = (255, 255, 255), (0, 0, 0)
LEGEND = "blue line: truth; orange line: found; tinted blue: missed; tinted orange: found in vain"

Colour = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """An image (H, W) in [0, 1], its truth, and what each arm found."""

    name: str
    pixels: Pixels
    truth: Mask
    found: Mapping[str, Mask]


def write_sheet(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Write a PNG: a row for each image, and columns for image, truth and every arm, with its Dice.

    Arms are those of the first row; above each is the mean of its Dice over the rows. The file gets its name when it is
    whole. ``InputError`` where it cannot be written.
    """
    arms = list(rows[0].found)
    heads = [("image", ""), ("truth", ""), *((arm, f"mean Dice {_mean(rows, arm):.3f}") for arm in arms)]
    heights = [max(1, round(PANEL * row.pixels.shape[0] / row.pixels.shape[1])) for row in rows]
    width = GAP + len(heads) * (PANEL + GAP)
    top = 4 * LINE + GAP
    sheet = Image.new("RGB", (width, top + sum(height + LINE + GAP for height in heights) + LINE), BACKGROUND)
    draw, letters = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    _write(draw, (GAP, GAP), title, letters, width - 2 * GAP)
    for column, head in enumerate(heads):
        for line, text in enumerate(head, 2):
            _write(draw, (GAP + column * (PANEL + GAP), line * LINE), text, letters, PANEL)
    for row, height in zip(rows, heights, strict=True):
        panels = [(row.name, None), (f"{row.truth.mean():.1%} foreground", row.truth)]
        panels += [(f"Dice {score(row.found[arm], row.truth).dice:.3f}", row.found[arm]) for arm in arms]
        for column, (label, mask) in enumerate(panels):
            left = GAP + column * (PANEL + GAP)
            truth = None if mask is None else row.truth
            sheet.paste(overlay(row.pixels, truth, None if mask is row.truth else mask, (PANEL, height)), (left, top))
            _write(draw, (left, top + height + 2), label, letters, PANEL)
        top += height + LINE + GAP
    _write(draw, (GAP, top), LEGEND, letters, width - 2 * GAP)
    _save(path, sheet)


def overlay(pixels: Pixels, truth: Mask | None, found: Mask | None, size: tuple[int, int]) -> Image.Image:
    """An image with outlines of masks, tinted where only one of both is; ``size`` is (across, down)."""
    grey = Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)).resize(
        size, Image.Resampling.LANCZOS
    )
    colour: Colour = np.repeat(np.asarray(grey, np.float64)[..., None], 3, axis=2)
    masks = [None if mask is None else _scaled(mask, size) for mask in (truth, found)]
    if masks[0] is not None and masks[1] is not None:
        for mask, other, tint in ((masks[0], masks[1], TRUTH), (masks[1], masks[0], FOUND)):
            only = mask & ~other
            colour[only] += TINT * (np.array(tint) - colour[only])
    for drawn, line in zip(masks, (TRUTH, FOUND), strict=True):
        if drawn is not None:
            colour[outline(drawn)] = line
    return Image.fromarray(np.round(colour).astype(np.uint8))


def outline(mask: Mask) -> Mask:
    """The pixels of a mask that have one beside them, or the edge of the image, that is not in it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _scaled(mask: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _mean(rows: Sequence[Row], arm: str) -> float:
    return mean_score([score(row.found[arm], row.truth) for row in rows]).dice


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, letters: ImageFont.ImageFont, room: int
) -> None:
    """A line of text, cut where there is no more room."""
    while draw.textlength(text, letters) > room:
        text = text.rstrip("…")[:-1] + "…"
    draw.text(place, text, INK, letters)


def _save(path: Path, sheet: Image.Image) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        sheet.save(temporary, format="PNG")
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
