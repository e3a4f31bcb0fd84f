"""A generic encoder and an expert that is composed with its embedding, over images of one size: SAMDA."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from node.errors import InputError
from node.models.encoder import Encoder, is_encoder, load_encoder
from node.models.unet_shape import Composition, UNetShape, is_expert, load_expert
from node.spec_file import SPECS, read_toml

COMPOSITIONS = SPECS / "compositions"
KEYS = ("name", "image", "encoder", "expert", "hidden")
OVERLAP = 0.5  # of patches, at least: nnU-Net's sliding window
MOST = 2**16  # pixels of a side, channels


@dataclass(frozen=True, slots=True)
class Composed:
    """An ``encoder`` that sees an image (height, width) once, and an expert of a ``shape`` that sees it in patches."""

    name: str
    image: tuple[int, int]
    encoder: Encoder
    shape: UNetShape

    @property
    def plain(self) -> UNetShape:
        """The expert's U-Net without what joins the embedding to it."""
        return replace(self.shape, composition=Composition())

    @property
    def patches(self) -> int:
        """Of an image: evenly, overlapping by half at least."""
        of_sides = zip(self.image, self.shape.patch, strict=True)
        return math.prod(max(0, math.ceil((side - patch) / (patch * OVERLAP))) + 1 for side, patch in of_sides)


def composition_names() -> list[str]:
    """The built-in compositions."""
    return sorted(path.stem for path in COMPOSITIONS.glob("*.toml"))


def is_composition(name: str) -> bool:
    """Whether ``name`` is a built-in composition or a ``.toml`` file of one; raises ``InputError`` if unreadable."""
    return name in composition_names() or (
        name.endswith(".toml") and {"encoder", "expert"} <= set(read_toml(Path(name)))
    )


def load_composition(name: str) -> Composed:
    """A built-in composition by name, or that of a ``.toml`` file; raises ``InputError``."""
    path = Path(name) if name.endswith(".toml") else COMPOSITIONS / f"{name}.toml"
    values = read_toml(path)
    if sorted(values) != sorted(KEYS):
        raise InputError(f"{path}: has {', '.join(values)}: must have exactly {', '.join(KEYS)}")
    image, hidden = values["image"], values["hidden"]
    if not isinstance(image, list) or len(image) != 2 or not all(_whole(side) for side in image):
        raise InputError(f"{path}: image = {image!r}: must be height and width, in pixels up to {MOST:,}")
    if not isinstance(hidden, int) or not _whole(hidden):
        raise InputError(f"{path}: hidden = {hidden!r}: must be a positive int, at most {MOST:,}")
    for key, known, kind in (("encoder", is_encoder, "an image encoder"), ("expert", is_expert, "a vision expert")):
        if not isinstance(values[key], str) or not known(_near(values[key], path)):
            what = f"{kind}, built in or by its path from this file's folder"
            raise InputError(f"{path}: {key} = {values[key]!r}: must be {what}")
    encoder = load_encoder(_near(values["encoder"], path))
    shape = _joined(load_expert(_near(values["expert"], path)), encoder, hidden, path)
    if max(image) > encoder.shape.image:
        most = encoder.shape.image
        raise InputError(f"{path}: image = {image}: must be {most} x {most} at most, what {encoder.name} sees at once")
    return Composed(str(values["name"]), (image[0], image[1]), encoder, shape)


def _joined(shape: UNetShape, encoder: Encoder, hidden: int, path: Path) -> UNetShape:
    """An expert with an adapter; one that was composed in training stays as it is."""
    stride, channels = encoder.shape.patch, encoder.shape.neck
    found = shape.composition
    if found.kind == "plain":
        found = Composition("adapter", channels, hidden)
    if found.channels != channels:
        raise InputError(
            f"{path}: expert {shape.name} takes embeddings of {found.channels} channels: must be {channels}, as "
            f"{encoder.name} makes them"
        )
    places = (-(-shape.patch[0] // stride), -(-shape.patch[1] // stride))
    return replace(shape, composition=replace(found, places=places))


def _near(name: object, path: Path) -> str:
    """A path as seen from the folder of the file that names it; a built-in name stays as it is."""
    beside = path.parent / str(name)
    return str(beside) if beside.exists() else str(name)


def _whole(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST
