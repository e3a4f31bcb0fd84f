"""The shape of an expert of SAMDA: a U-Net and how a generic embedding joins it; from its ``expert.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from node.errors import InputError
from node.spec_file import SPECS, read_toml

EXPERTS = SPECS / "experts"
FILE, FORMAT, KIND = "expert.json", 1, "samda-expert"
KINDS = ("plain", "concat", "adapter")
MOST = 2**20  # of any whole number in a file
ADAPTER_SLOPE = 0.01  # of the leaky ReLU within an adapter


@dataclass(frozen=True, slots=True)
class Composition:
    """How an embedding of so many ``channels``, reduced to ``hidden``, joins the bottleneck; ``kind``: of ``KINDS``.

    ``places``: its height and width, None where it has the bottleneck's.
    """

    kind: str = "plain"
    channels: int = 0
    hidden: int = 0
    places: tuple[int, int] | None = None


PLAIN = Composition()


@dataclass(frozen=True, slots=True)
class UNetShape:
    """A ``PlainConvUNet`` of dynamic-network-architectures over images of ``patch`` (height, width) pixels.

    ``features`` and ``strides`` by stage of the encoder, ``convs_encoder`` and ``convs_decoder`` how many convolutions
    each stage has, the decoder's from the bottom up. Convolutions have a bias, instance norms weights.
    """

    name: str
    input_channels: int
    features: tuple[int, ...]
    strides: tuple[int, ...]
    kernel: int
    convs_encoder: tuple[int, ...]
    convs_decoder: tuple[int, ...]
    classes: int
    norm_epsilon: float
    leaky_slope: float
    patch: tuple[int, int]
    composition: Composition = PLAIN

    @property
    def stride(self) -> int:
        """Pixels, along either side, to a place of the bottleneck."""
        return prod(self.strides)

    @property
    def bottleneck(self) -> tuple[int, int]:
        """Its height and width."""
        return self.patch[0] // self.stride, self.patch[1] // self.stride

    @property
    def embedding(self) -> tuple[int, int]:
        """Height and width of the embedding that enters."""
        return self.composition.places or self.bottleneck

    @property
    def supervision_parameters(self) -> int:
        """What the segmentation heads of coarser stages hold, which inference does not use."""
        return sum((features + 1) * self.classes for features in self.features[1:-1])


def expert_names() -> list[str]:
    """The built-in experts."""
    return sorted(path.stem for path in EXPERTS.glob("*.toml"))


def is_expert(name: str) -> bool:
    """Whether ``name`` is a built-in expert, or an expert's folder or the ``expert.json`` in it."""
    return name in expert_names() or Path(name).name == FILE or (Path(name) / FILE).is_file()


def load_expert(name: str) -> UNetShape:
    """A built-in expert by name, or that of a folder or of its ``expert.json``; raises ``InputError``."""
    if name in expert_names():
        path = EXPERTS / f"{name}.toml"
        return expert_of(read_toml(path), path, name)
    path = Path(name) if Path(name).name == FILE else Path(name) / FILE
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read as JSON: {reason}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: is a {type(values).__name__}: must be a table with unet, composition and patch")
    return expert_of(values, path, path.absolute().parent.name)


def expert_of(values: Mapping[str, object], path: Path, name: str) -> UNetShape:
    """The expert called ``name`` of ``values`` read from ``path``; raises ``InputError``."""
    for key, wanted in (("format", FORMAT), ("kind", KIND)):
        if values.get(key) != wanted:
            raise InputError(f"{path}: {key} = {values.get(key)!r}: must be {wanted!r}")
    unet = _table(values, "unet", path)
    read: dict[str, object] = {
        key: _number(unet, key, path, "unet.") for key in ("input_channels", "kernel", "classes")
    }
    read |= {key: _numbers(unet, key, path, "unet.") for key in _LISTS}
    read |= {key: _fraction(unet, key, path, "unet.") for key in ("norm_epsilon", "leaky_slope")}
    shape = UNetShape(name, patch=_pair(values, "patch", path), composition=_composition(values, path), **read)  # type: ignore[arg-type]
    _check(shape, path)
    return shape


_LISTS = ("features", "strides", "convs_encoder", "convs_decoder")


def _composition(values: Mapping[str, object], path: Path) -> Composition:
    table = _table(values, "composition", path)
    kind = table.get("kind")
    if kind not in KINDS:
        raise InputError(f"{path}: composition.kind = {kind!r}: must be one of {', '.join(KINDS)}")
    if kind == "plain":
        return PLAIN
    encoder = _table(table, "encoder", path, "composition.")
    channels = _number(encoder, "channels", path, "composition.encoder.")
    adapter = _table(table, "adapter", path, "composition.")
    return Composition(str(kind), channels, _number(adapter, "hidden", path, "composition.adapter."))


def _check(shape: UNetShape, path: Path) -> None:
    """What ``PlainConvUNet`` itself refuses, or fails over."""
    stages = len(shape.features)
    lengths = {"strides": stages, "convs_encoder": stages, "convs_decoder": stages - 1}
    if stages < 2:
        raise InputError(f"{path}: unet.features = {list(shape.features)}: must be of two stages at least")
    for key, length in lengths.items():
        if len(getattr(shape, key)) != length:
            given = list(getattr(shape, key))
            raise InputError(f"{path}: unet.{key} = {given}: must have {length} entries, for {stages} features")
    if shape.kernel % 2 == 0:
        raise InputError(f"{path}: unet.kernel = {shape.kernel}: must be odd")
    if any(side % shape.stride for side in shape.patch):
        raise InputError(
            f"{path}: patch = {list(shape.patch)}: must be multiples of {shape.stride}, the product of unet.strides"
        )


def _table(values: Mapping[str, object], key: str, path: Path, before: str = "") -> Mapping[str, object]:
    found = values.get(key)
    if not isinstance(found, dict):
        raise InputError(f"{path}: {before}{key} = {found!r}: must be a table")
    return found


def _whole(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST


def _number(values: Mapping[str, object], key: str, path: Path, before: str = "") -> int:
    found = values.get(key)
    if not _whole(found):
        raise InputError(f"{path}: {before}{key} = {found!r}: must be a positive int, at most {MOST:,}")
    assert isinstance(found, int)
    return found


def _numbers(values: Mapping[str, object], key: str, path: Path, before: str = "") -> tuple[int, ...]:
    found = values.get(key)
    if not isinstance(found, list) or not found or not all(map(_whole, found)):
        raise InputError(f"{path}: {before}{key} = {found!r}: must be a list of positive ints, at most {MOST:,}")
    return tuple(found)


def _pair(values: Mapping[str, object], key: str, path: Path) -> tuple[int, int]:
    found = _numbers(values, key, path)
    if len(found) != 2:
        raise InputError(f"{path}: {key} = {list(found)}: must be height and width in pixels")
    return found[0], found[1]


def _fraction(values: Mapping[str, object], key: str, path: Path, before: str = "") -> float:
    found = values.get(key)
    if type(found) not in (int, float) or not 0 <= float(found) <= 1:  # type: ignore[arg-type]
        raise InputError(f"{path}: {before}{key} = {found!r}: must be a number from 0 to 1")
    return float(found)  # type: ignore[arg-type]
