"""SAM's image encoders, ViT-B, L and H, from a checkpoint file that the user names. None comes with this project.

Kirillov et al., "Segment Anything" (ICCV 2023); the model is segment-anything's own code, its numbers those of its
``Sam.preprocess``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody has it
from torch import Tensor, nn

from node.errors import InputError
from samda.encoders.identity import identity
from samda.encoders.sam_code import VARIANTS, Variant, image_encoder

MEANS, DEVIATIONS = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of red, green and blue, 0 to 255
PREFIX = "image_encoder."  # of its weights in a checkpoint of the whole of SAM


class Sam:
    """An encoder (``samda.encoder.Encoder``); ``pixels``: sides of the square that images are padded to with zeros.

    ``note`` says what differs from SAM as it was trained, where something does.
    """

    def __init__(self, name: str, variant: Variant, model: nn.Module, pixels: int) -> None:
        self.name, self.channels, self.stride, self.pixels = name, variant.channels, variant.patch, pixels
        self.note = _resized(model, variant, pixels) if pixels != variant.pixels else None
        definition = f"SAM {variant} at {pixels} pixels; (255 x - {MEANS}) / {DEVIATIONS}, padded with 0"
        self.hash = identity(definition, model.state_dict())
        self._model = model

    def encode(self, images: Tensor) -> Tensor:
        """Embeddings (N, 256, ceil(H / 16), ceil(W / 16)) of images (N, 1, H, W) in [0, 1], one by one.

        ``InputError`` where one is larger than the encoder's input: it is never shrunk unasked.
        """
        height, width = images.shape[-2:]
        if max(height, width) > self.pixels:
            raise InputError(
                f"encoder {self.name!r}: images of {height} x {width} pixels; at most {self.pixels} x {self.pixels} "
                f"are allowed: cut them into patches, or give the encoder a larger size"
            )
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        with torch.no_grad():
            return torch.cat([self._model(self._input(image))[..., :rows, :columns] for image in images.split(1)])

    def _input(self, image: Tensor) -> Tensor:
        """As ``Sam.preprocess``: normalised, then padded below and to the right."""
        means, deviations = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (MEANS, DEVIATIONS))
        x = (255 * image - means) / deviations
        return F.pad(x, (0, self.pixels - x.shape[-1], 0, self.pixels - x.shape[-2]))


def sam(name: str, checkpoint: Path, pixels: int | None = None) -> Sam:
    """The encoder ``name`` of ``VARIANTS`` with the weights of a file; ``InputError`` where these are another's."""
    return read(name, VARIANTS[name], checkpoint, pixels)


def read(name: str, variant: Variant, checkpoint: Path, pixels: int | None = None) -> Sam:
    """As ``sam``, of any variant. ``pixels`` other than those it was trained on: positions are resized."""
    size = variant.pixels if pixels is None else pixels
    if size <= 0 or size % variant.patch:
        raise InputError(f"encoder {name!r}: size {size}: a multiple of {variant.patch} pixels is allowed")
    weights = _weights(name, checkpoint)
    model = image_encoder(variant, "meta")
    _check(name, checkpoint, weights, model.state_dict())
    model.load_state_dict(weights, assign=True)
    return Sam(name, variant, model.eval().requires_grad_(False), size)


def _weights(name: str, checkpoint: Path) -> dict[str, Tensor]:
    """By the encoder's own names, float32. Nothing in the file is run: ``weights_only``."""
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"encoder {name!r}: checkpoint {str(checkpoint)!r}: {error.strerror or error}") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError):
        stored = None
    by_name = isinstance(stored, dict) and all(isinstance(key, str) for key in stored)
    if not by_name or not all(isinstance(value, Tensor) for value in stored.values()):
        raise InputError(
            f"encoder {name!r}: checkpoint {str(checkpoint)!r} is no file of weights by name, as torch.save makes them "
            f"of a state dict; SAM's own are called sam_vit_b_01ec64.pth and the like"
        )
    if any(key.startswith(PREFIX) for key in stored):
        stored = {key.removeprefix(PREFIX): value for key, value in stored.items() if key.startswith(PREFIX)}
    return {key: value.to(torch.float32) for key, value in stored.items()}


def _check(name: str, checkpoint: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """``InputError`` where names or shapes are not the variant's; it says whose they are, where they are another's."""
    wrong = sorted(
        (key for key in expected.keys() | weights.keys() if _shape(weights, key) != _shape(expected, key)),
        key=lambda key: (key != "patch_embed.proj.bias", key),
    )
    if not wrong:
        return
    raise InputError(
        f"encoder {name!r}: checkpoint {str(checkpoint)!r} is not of this variant, {_whose(weights)}: {wrong[0]} is "
        f"{_shape(weights, wrong[0]) or 'missing'}, expected {_shape(expected, wrong[0]) or 'nothing of that name'}"
    )


def _whose(weights: Mapping[str, Tensor]) -> str:
    width = _shape(weights, "patch_embed.proj.bias")
    depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    known = [name for name, variant in VARIANTS.items() if ((variant.width,), variant.depth) == (width, depth)]
    return f"but has the width and depth of {known[0]}" if known else f"nor of another: {', '.join(VARIANTS)}"


def _shape(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(weights[key].shape) if key in weights else None


def _resized(model: nn.Module, variant: Variant, pixels: int) -> str:
    """Resize the absolute positions; the relative ones of global attention SAM's code resizes whenever it runs."""
    grid, places = variant.pixels // variant.patch, pixels // variant.patch
    positions = model.pos_embed.permute(0, 3, 1, 2)
    positions = F.interpolate(positions, (places, places), mode="bicubic", align_corners=False, antialias=places < grid)
    model.pos_embed = nn.Parameter(positions.permute(0, 2, 3, 1).contiguous(), requires_grad=False)
    return (
        f"trained on {variant.pixels} x {variant.pixels} pixels, used on {pixels} x {pixels}: position embeddings were "
        f"resized from {grid} x {grid} to {places} x {places} places, bicubically, and the relative positions of "
        f"global attention from {2 * grid - 1} to {2 * places - 1}, linearly"
    )
