"""Folders of images and masks: PNG or TIFF, grey, 8 or 16 bits.

Either ``NAME.png`` with ``NAME_mask.png`` beside it, or sub-folders ``images/`` and ``masks/`` with equal names. A
pixel of a mask that is not 0 is foreground.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from node.errors import InputError

SUFFIXES = (".png", ".tif", ".tiff")
MASK = "_mask"
FULL = {"1": 1, "L": 255, "I;16": 65535, "I;16B": 65535, "I;16L": 65535}  # grey modes of PIL -> their greatest value
SMALLEST = 32  # pixels of a side: less is no micrograph, and no patch

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Case:
    """An image, and where there is one its mask.

    ``pixels``: (H, W) in [0, 1]. ``mask``: (H, W). ``certain``: (H, W), the pixels of the mask that count; None: all.
    """

    name: str
    pixels: Pixels
    mask: Mask | None = None
    certain: Mask | None = None

    @property
    def hash(self) -> str:
        """Of the image alone: equal for equal pixels, whatever file they are from."""
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).hexdigest()

    @property
    def truth(self) -> Mask:
        """The mask of an image that has one."""
        assert self.mask is not None
        return self.mask


def read_labelled(folder: Path) -> list[Case]:
    """The images of a folder with their masks, by name; raises ``InputError``."""
    images, masks = _files(folder)
    if not masks:
        raise InputError(f"{folder}: no masks: expected NAME{MASK}.png beside NAME.png, or images/ and masks/")
    for lacking, of, what in ((set(images) - set(masks), images, "mask"), (set(masks) - set(images), masks, "image")):
        if lacking:
            raise InputError(f"{of[min(lacking)]}: has no {what} ({len(lacking)} of {len(of)}): add it, or remove it")
    cases = [_labelled(name, images[name], masks[name]) for name in sorted(images)]
    if not any(case.truth.any() for case in cases):
        raise InputError(f"{folder}: none of its {len(cases)} masks has a pixel of foreground (any that is not 0)")
    return cases


def read_images(folder: Path) -> list[Case]:
    """The images of a folder by name, each with its mask where it has one; raises ``InputError``."""
    images, masks = _files(folder)
    return [_labelled(name, images[name], masks.get(name)) for name in sorted(images)]


def read_image(path: Path) -> Case:
    """One image, without a mask; raises ``InputError``."""
    return _labelled(path.stem, path, None)


def read_mask(path: Path) -> Mask:
    """Where a mask has foreground, (H, W); raises ``InputError``."""
    return _read(path) > 0


def _files(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
    """Images and masks by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is no folder' if folder.exists() else 'there is no such folder'}")
    if (folder / "images").is_dir():
        masks = _by_name(folder / "masks") if (folder / "masks").is_dir() else {}
        found = _by_name(folder / "images"), masks
    else:
        every = _by_name(folder)
        masks = {name.removesuffix(MASK): path for name, path in every.items() if name.endswith(MASK)}
        found = {name: path for name, path in every.items() if not name.endswith(MASK)}, masks
    if not found[0]:
        raise InputError(f"{folder}: no images: expected {', '.join(SUFFIXES)}, in it or in its images/")
    return found


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(f"{path}: {found[path.stem].name} has the same name: remove one of them")
        found[path.stem] = path
    return found


def _labelled(name: str, image: Path, mask: Path | None) -> Case:
    pixels = _read(image)
    if min(pixels.shape) < SMALLEST:
        raise InputError(f"{image}: {_size(pixels.shape)} pixels: each side must have at least {SMALLEST}")
    if mask is None:
        return Case(name, pixels)
    found = read_mask(mask)
    if found.shape != pixels.shape:
        raise InputError(f"{mask}: {_size(found.shape)} pixels, but its image {image.name} has {_size(pixels.shape)}")
    return Case(name, pixels, found)


def _read(path: Path) -> Pixels:
    """Values divided by the greatest one of their depth."""
    try:
        with Image.open(path) as image:
            pages, mode = getattr(image, "n_frames", 1), image.mode
            if pages != 1:
                raise InputError(f"{path}: has {pages} pages: must be one image; split the stack into files")
            if mode not in FULL:
                bands = len(image.getbands())
                what = f"{bands} channels" if bands > 1 else f"values of mode {mode}"
                raise InputError(f"{path}: has {what}: must be grey, of 8 or 16 bits")
            values = np.asarray(image, np.float32)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as an image: {' '.join(str(error).split())}") from None
    return values / np.float32(FULL[mode])


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
