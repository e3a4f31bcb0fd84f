"""The shape of a Llama-family model, from our TOML or a Hugging Face ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from node.errors import InputError
from node.spec_file import SPECS, read_toml

MODELS = SPECS / "models"
ARCHITECTURES = ("llama", "mistral")
_HUGGING_FACE = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocabulary": "vocab_size",
    "context": "max_position_embeddings",
    "sliding_window": "sliding_window",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes in elements; ``parameters`` is the published count, where there is one; ``context`` in tokens."""

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


def model_names() -> list[str]:
    """The built-in models."""
    return sorted(path.stem for path in MODELS.glob("*.toml"))


def load_shape(name: str) -> Shape:
    """The shape of a built-in model, a ``.toml`` path or the path of a ``config.json``; raises ``InputError``."""
    if name.endswith(".json"):
        return _from_hugging_face(Path(name))
    path = Path(name) if name.endswith(".toml") else MODELS / f"{name}.toml"
    if not name.endswith(".toml") and name not in model_names():
        raise InputError(
            f"model {name!r}: no such model; there are {', '.join(model_names())}, "
            "or give the path of a .toml file or of a Hugging Face config.json"
        )
    return _checked(read_toml(path), path)


def _checked(values: dict[str, object], path: Path, written: dict[str, str] | None = None) -> Shape:
    """The shape of checked ``values``; ``written``: how a key is called in the file, where that differs."""
    known, called = {entry.name: entry for entry in fields(Shape)}, written or {}
    for key, value in values.items():
        name = called.get(key, key)
        if key not in known:
            raise InputError(f"{path}: {name}: unknown key; a model has {', '.join(known)}")
        kind = {"name": str, "tied_embeddings": bool}.get(key, int)
        if value is None and key in ("sliding_window", "parameters"):
            continue
        if type(value) is not kind or (kind is int and isinstance(value, int) and value < 1):
            raise InputError(f"{path}: {name} = {value!r}: must be a {'positive ' * (kind is int)}{kind.__name__}")
    required = [key for key in known if key not in ("sliding_window", "tied_embeddings", "parameters")]
    if missing := [called.get(key, key) for key in required if key not in values]:
        raise InputError(f"{path}: {', '.join(missing)} missing")
    shape = Shape(**values)  # type: ignore[arg-type]
    if shape.heads % shape.kv_heads:
        heads, kv_heads = (called.get(key, key) for key in ("heads", "kv_heads"))
        raise InputError(f"{path}: {heads} = {shape.heads}: must be a multiple of {kv_heads} = {shape.kv_heads}")
    return shape


def _from_hugging_face(path: Path) -> Shape:
    try:
        config = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read as JSON: {reason}") from None
    if not isinstance(config, dict) or config.get("model_type") not in ARCHITECTURES:
        found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise InputError(f"{path}: model_type = {found!r}: must be one of {', '.join(ARCHITECTURES)}")
    for bias in ("attention_bias", "mlp_bias"):
        if config.get(bias):
            raise InputError(f"{path}: {bias} = true: biases are not supported; only false is")
    values = {ours: config.get(theirs) for ours, theirs in _HUGGING_FACE.items()}
    heads, hidden = values["heads"], values["hidden"]
    if values["kv_heads"] is None:
        values["kv_heads"] = heads
    if values["head_dim"] is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        values["head_dim"] = hidden // heads
    values |= {"name": path.parent.name or path.stem, "tied_embeddings": bool(config.get("tie_word_embeddings"))}
    return _checked(values, path, _HUGGING_FACE)
