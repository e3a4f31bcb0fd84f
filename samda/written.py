"""Segmentations on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from node.errors import InputError
from samda.images import Mask


def write_mask(path: Path, mask: Mask) -> None:
    """A PNG of 8 bits, 255 in the foreground; to a temporary name, then renamed."""
    temporary = path.with_name(f".{path.name}")
    try:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG")
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
