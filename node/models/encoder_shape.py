"""The shape of an image encoder, and our own TOML of it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from node.dataflow.attributes import Grid
from node.errors import InputError
from node.spec_file import SPECS, read_toml

ENCODERS = SPECS / "encoders"
MOST = 10**6
CHANNELS = 3  # red, green, blue


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """SAM's image encoder (Kirillov et al. 2023), after ViTDet (Li et al. 2022): sizes in elements.

    ``image`` and ``patch`` are edges in pixels, ``window`` in patches. Layers attend within windows, those of
    ``global_layers``, counted from 0, to all patches. ``neck``: channels of the embedding. ``parameters``: the
    published count, where there is one, which is of one image size.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    global_layers: tuple[int, ...]
    window: int
    image: int
    patch: int
    neck: int
    norm_epsilon: float = 1e-6
    parameters: int | None = None

    @property
    def head_dim(self) -> int:
        """Elements of a head."""
        return self.hidden // self.heads

    @property
    def side(self) -> int:
        """Patches beside one another."""
        return self.image // self.patch

    @property
    def rows(self) -> int:
        """Patches of an image."""
        return self.side**2

    def grid(self, layer: int) -> Grid:
        """The windows of a layer; one that is global has one, which is the image."""
        return Grid(self.side, self.side if layer in self.global_layers else self.window)


def encoder_names() -> list[str]:
    """The built-in image encoders."""
    return sorted(path.stem for path in ENCODERS.glob("*.toml"))


def read_encoder(path: Path) -> EncoderShape:
    """The shape of our own TOML at ``path``; raises ``InputError``."""
    values = read_toml(path)
    known = {entry.name: entry for entry in fields(EncoderShape)}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{path}: {key}: unknown key; an image encoder has {', '.join(known)}")
        if not _may_be(key, value):
            raise InputError(f"{path}: {key} = {value!r}: must be {_wanted(key)}")
    if missing := [key for key, entry in known.items() if entry.default is MISSING and key not in values]:
        raise InputError(f"{path}: {', '.join(missing)} missing")
    shape = EncoderShape(**{**values, "global_layers": tuple(values["global_layers"])})  # type: ignore[arg-type]
    if shape.hidden % shape.heads or shape.image % shape.patch:
        raise InputError(f"{path}: heads must divide hidden, and patch must divide image; given {values}")
    if wrong := [layer for layer in shape.global_layers if layer >= shape.layers]:
        raise InputError(f"{path}: global_layers: {wrong[0]}: must be below {shape.layers}, the layers")
    return shape


def _may_be(key: str, value: object) -> bool:
    if key == "name":
        return isinstance(value, str)
    if key == "norm_epsilon":
        return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]
    if key == "global_layers":
        return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)
    return type(value) is int and 1 <= value <= (MOST**2 if key == "parameters" else MOST)


def _wanted(key: str) -> str:
    special = {"name": "a str", "norm_epsilon": "a number from 0 to 1", "global_layers": "a list of whole numbers"}
    return special.get(key, f"a positive int, at most {MOST:,}")
