"""The shape of a decoder model, and our own TOML of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from node.dataflow.attributes import Rope
from node.errors import InputError
from node.models.family import FAMILIES, Family
from node.spec_file import SPECS, read_toml

MODELS = SPECS / "models"
PLAIN_ROPE = Rope()


@dataclass(frozen=True, slots=True)
class VisionShape:
    """Sizes of a vision transformer in elements; ``image`` and ``patch`` are edges in pixels."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    image: int
    patch: int

    @property
    def head_dim(self) -> int:
        """Elements of a head."""
        return self.hidden // self.heads

    @property
    def patches(self) -> int:
        """Patches of an image, each a token of the language model."""
        return (self.image // self.patch) ** 2

    @property
    def positions(self) -> int:
        """Rows that the tower works on: the patches and a class token."""
        return self.patches + 1


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes in elements; ``parameters`` is the published count, where there is one; ``context`` in tokens.

    ``density``: the share of the linear layers' weights that are not zero, each held with ``index_bytes`` that say
    where it is; embeddings, head, norms and biases are dense. ``parameters`` counts zeros too. ``norm_epsilon`` and
    ``rope`` change what is computed, not how long it takes.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    context: int
    sliding_window: int | None = None
    tied_embeddings: bool = False
    parameters: int | None = None
    family: str = "llama"
    vision: VisionShape | None = None
    density: float = 1.0
    index_bytes: float = 0.0
    norm_epsilon: float = 1e-5
    rope: Rope = PLAIN_ROPE

    @property
    def traits(self) -> Family:
        """How a layer of its family is built."""
        return FAMILIES[self.family]


MOST = 10**13
FRACTIONS = {"density": (1e-6, 1.0), "index_bytes": (0.0, 8.0), "norm_epsilon": (0.0, 1.0)}  # least and most
OPTIONAL = ("sliding_window", "tied_embeddings", "parameters", "family", "vision", "rope", *FRACTIONS)
KINDS: dict[str, type] = {"name": str, "tied_embeddings": bool, "family": str, "vision": VisionShape, "rope": Rope}


def model_names() -> list[str]:
    """The built-in models."""
    return sorted(path.stem for path in MODELS.glob("*.toml"))


def read_shape(path: Path) -> Shape:
    """The shape of our own TOML at ``path``; raises ``InputError``."""
    values = read_toml(path)
    tables = {key: read(values[key], path) for key, read in TABLES.items() if key in values}
    return checked_shape({**values, **tables}, path)


def _vision(values: object, path: Path) -> VisionShape:
    known = [entry.name for entry in fields(VisionShape)]
    if not isinstance(values, dict) or sorted(values) != sorted(known):
        raise InputError(f"{path}: vision = {values!r}: must be a table of exactly {', '.join(known)}")
    for key, value in values.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{path}: vision.{key} = {value!r}: must be a positive int")
    shape = VisionShape(**values)
    if shape.hidden % shape.heads or shape.image % shape.patch:
        raise InputError(f"{path}: vision: heads must divide hidden, and patch must divide image; given {values}")
    return shape


def rope_of(values: object, path: Path) -> Rope:
    """Rotary position embeddings from a table of ``Rope``'s fields, all optional; raises ``InputError``."""
    known = {entry.name: entry for entry in fields(Rope)}
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise InputError(f"{path}: rope = {values!r}: must be a table of {', '.join(known)}")
    for key, value in values.items():
        if key == "kind":
            if not isinstance(value, str):
                raise InputError(f"{path}: rope.kind = {value!r}: must be a str")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST:
            raise InputError(f"{path}: rope.{key} = {value!r}: must be a number above 0, at most {MOST:,}")
    return Rope(**values)


TABLES: dict[str, Callable[[object, Path], object]] = {"vision": _vision, "rope": rope_of}


def checked_shape(values: Mapping[str, object], path: Path, written: Mapping[str, str] | None = None) -> Shape:
    """The shape of ``values`` read from ``path``; ``written``: how a key is called there, where that differs.

    Raises ``InputError`` that names the key as it is written.
    """
    known, called = {entry.name: entry for entry in fields(Shape)}, written or {}
    for key, value in values.items():
        name = called.get(key, key)
        if key not in known:
            raise InputError(f"{path}: {name}: unknown key; a model has {', '.join(known)}")
        if key in FRACTIONS:
            _check_fraction(key, name, value, path)
            continue
        kind = KINDS.get(key, int)
        if value is None and key in ("sliding_window", "parameters"):
            continue
        if type(value) is not kind or (kind is int and isinstance(value, int) and not 1 <= value <= MOST):
            kind_of = f"positive int, at most {MOST:,}" if kind is int else kind.__name__
            raise InputError(f"{path}: {name} = {value!r}: must be a {kind_of}")
    if missing := [called.get(key, key) for key in known if key not in OPTIONAL and key not in values]:
        raise InputError(f"{path}: {', '.join(missing)} missing")
    if values.get("family", "llama") not in FAMILIES:
        raise InputError(f"{path}: family = {values['family']!r}: must be one of {', '.join(FAMILIES)}")
    shape = Shape(**values)  # type: ignore[arg-type]
    if shape.heads % shape.kv_heads:
        heads, kv_heads = (called.get(key, key) for key in ("heads", "kv_heads"))
        raise InputError(f"{path}: {heads} = {shape.heads}: must be a multiple of {kv_heads} = {shape.kv_heads}")
    return shape


def _check_fraction(key: str, name: str, value: object, path: Path) -> None:
    """A number of the range of its ``key``, which is called ``name`` in the file."""
    least, most = FRACTIONS[key]
    if type(value) not in (int, float) or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise InputError(f"{path}: {name} = {value!r}: must be a number from {least} to {most}")
