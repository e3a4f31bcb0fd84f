"""The code of SAM's image encoder, from the package segment-anything, and its three sizes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec

import torch
from torch import nn

from node.errors import InputError

PACKAGE, DISTRIBUTION = "segment_anything", "segment-anything==1.0"


@dataclass(frozen=True)
class Variant:
    """One size of the encoder: what ``segment_anything.build_sam`` has of it; all else is common to them."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]  # whose attention is over the image; that of the others over windows
    pixels: int = 1024  # along either side of what it was trained on
    patch: int = 16
    window: int = 14  # patches
    channels: int = 256


VARIANTS = {
    "sam-vit-b": Variant(768, 12, 12, (2, 5, 8, 11)),
    "sam-vit-l": Variant(1024, 24, 16, (5, 11, 17, 23)),
    "sam-vit-h": Variant(1280, 32, 16, (7, 15, 23, 31)),
}


def image_encoder(variant: Variant, device: str = "cpu") -> nn.Module:
    """Segment Anything's own module, (N, 3, pixels, pixels) to (N, channels, pixels / patch, pixels / patch).

    Its weights are random; on ``device`` "meta" it has none. ``InputError`` where the package is not installed.
    """
    with torch.device(device):
        return _code()(
            img_size=variant.pixels,
            patch_size=variant.patch,
            embed_dim=variant.width,
            depth=variant.depth,
            num_heads=variant.heads,
            out_chans=variant.channels,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=variant.window,
            global_attn_indexes=variant.global_blocks,
        )


def _code() -> Callable[..., nn.Module]:
    """``ImageEncoderViT``. The package's own front imports torchvision, which its models need not: it is left out."""
    spec = find_spec(PACKAGE)
    if spec is None:
        raise InputError(
            f"encoder 'sam': {DISTRIBUTION} is not installed; pip install --no-deps {DISTRIBUTION} brings its code"
        )
    if PACKAGE not in sys.modules:
        sys.modules[PACKAGE] = module_from_spec(spec)  # not executed
    return import_module(f"{PACKAGE}.modeling.image_encoder").ImageEncoderViT
