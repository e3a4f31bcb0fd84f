"""Shapes from a Hugging Face ``config.json``, by its ``model_type``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from node.dataflow.attributes import Rope
from node.errors import InputError
from node.models.encoder_shape import encoder_names
from node.models.monarch import transform_names
from node.models.shape import MODELS, Shape, checked_shape, model_names, read_shape, rope_of
from node.models.unet_shape import expert_names

Config = Mapping[str, object]
MISTRAL_KV_HEADS = 8
LLAMA_EPSILON, LAYER_NORM_EPSILON = 1e-6, 1e-5
ROPE = {  # in a config's table: ours
    "rope_theta": "theta",
    "rope_type": "kind",
    "factor": "factor",
    "low_freq_factor": "low",
    "high_freq_factor": "high",
    "original_max_position_embeddings": "original",
}
Read = tuple[dict[str, object], dict[str, str]]  # values by our keys, and how each is written there


def load_shape(name: str) -> Shape:
    """The shape of a built-in model, a ``.toml`` path or the path of a ``config.json``; raises ``InputError``."""
    if name.endswith(".json"):
        return read_config_json(Path(name))
    if not name.endswith(".toml") and name not in model_names():
        raise InputError(
            f"model {name!r}: no such model; there are {', '.join(_built_in())}, "
            "or give the path of a .toml file or of a Hugging Face config.json"
        )
    return read_shape(Path(name) if name.endswith(".toml") else MODELS / f"{name}.toml")


def _built_in() -> list[str]:
    """Every model that is there by name, those of one pass too, which are read elsewhere."""
    return [*model_names(), *encoder_names(), *expert_names(), *transform_names()]


def read_config_json(path: Path) -> Shape:
    """The shape of a ``config.json``; raises ``InputError``."""
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read as JSON: {reason}") from None
    kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
    if not isinstance(config, dict) or kind not in ARCHITECTURES:
        raise InputError(f"{path}: model_type = {kind!r}: must be one of {', '.join(ARCHITECTURES)}")
    for key in ("quantization_config", "num_local_experts"):
        if config.get(key):
            raise InputError(f"{path}: {key}: is not supported; only a dense model without quantisation is")
    tied = config.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        raise InputError(f"{path}: tie_word_embeddings = {tied!r}: must be true or false")
    values, written = ARCHITECTURES[kind](config, path)
    return checked_shape({**values, "name": path.parent.name or path.stem}, path, written)


def _llama(config: Config, path: Path) -> Read:
    _refuse(config, path, {"attention_bias": False, "mlp_bias": False})
    _only(config, path, "hidden_act", "silu")
    written = {
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "ffn": "intermediate_size",
        "vocabulary": "vocab_size",
        "context": "max_position_embeddings",
        "sliding_window": "sliding_window",
        "norm_epsilon": "rms_norm_eps",
    }
    values = {ours: config.get(theirs) for ours, theirs in written.items()}
    values |= {"rope": _rope(config, path), "norm_epsilon": config.get("rms_norm_eps", LLAMA_EPSILON)}
    if values["kv_heads"] is None:  # what the architecture's own defaults say
        values["kv_heads"] = MISTRAL_KV_HEADS if config["model_type"] == "mistral" else values["heads"]
    if values["head_dim"] is None:
        values["head_dim"] = _head_dim(values, written, path)
    return {**values, "tied_embeddings": bool(config.get("tie_word_embeddings"))}, written


def _falcon(config: Config, path: Path) -> Read:
    """Falcon: the new architecture (40B, 180B: grouped heads, two norms) and the one before (7B: one KV head)."""
    _refuse(config, path, {"bias": False, "alibi": False, "parallel_attn": True})
    _only(config, path, "activation", "gelu")
    written = {
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "kv_heads": "num_kv_heads",
        "ffn": "ffn_hidden_size",
        "vocabulary": "vocab_size",
        "context": "max_position_embeddings",
        "norm_epsilon": "layer_norm_epsilon",
    }
    values = {ours: config.get(theirs) for ours, theirs in written.items()}
    values |= {"rope": _rope(config, path), "norm_epsilon": config.get("layer_norm_epsilon", LAYER_NORM_EPSILON)}
    new = bool(config.get("new_decoder_architecture"))
    if not new:
        values["kv_heads"] = 1 if config.get("multi_query", True) else values["heads"]
    elif values["kv_heads"] is None:
        values["kv_heads"] = values["heads"]
    _four_times(values, written, path)
    values["context"] = 2048 if values["context"] is None else values["context"]
    norms = config.get("num_ln_in_parallel_attn") or (2 if new else 1)
    tied = bool(config.get("tie_word_embeddings", True))
    family = "falcon" if norms == 2 else "falcon-one-norm"
    return {**values, "family": family, "tied_embeddings": tied}, written


def _bloom(config: Config, path: Path) -> Read:
    _refuse(config, path, {"apply_residual_connection_post_layernorm": False})
    older = {"layers": "n_layer", "heads": "n_head", "hidden": "n_embed"}
    written = {
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "vocabulary": "vocab_size",
        "context": "seq_length",
        "norm_epsilon": "layer_norm_epsilon",
    }
    written |= {ours: theirs for ours, theirs in older.items() if theirs in config}
    values = {ours: config.get(theirs) for ours, theirs in written.items()}
    values["kv_heads"] = values["heads"]
    values["norm_epsilon"] = config.get("layer_norm_epsilon", LAYER_NORM_EPSILON)
    values["ffn"] = None
    _four_times(values, written, path)
    values["context"] = 2048 if values["context"] is None else values["context"]
    tied = bool(config.get("tie_word_embeddings", True))
    return {**values, "family": "bloom", "tied_embeddings": tied}, written


def _four_times(values: dict[str, object], written: Mapping[str, str], path: Path) -> None:
    """What these configs leave out: the FFN is four times as wide, the heads share the hidden size."""
    hidden = values["hidden"]
    if values["ffn"] is None and isinstance(hidden, int):
        values["ffn"] = 4 * hidden
    values["head_dim"] = _head_dim(values, written, path)


def _head_dim(values: Config, written: Mapping[str, str], path: Path) -> object:
    """The hidden size shared by the heads; None where either is no number."""
    hidden, heads = values["hidden"], values["heads"]
    if not (isinstance(hidden, int) and isinstance(heads, int) and heads > 0):
        return None
    if hidden % heads:
        names = written["hidden"], written["heads"]
        raise InputError(f"{path}: {names[0]} = {hidden}: must be a multiple of {names[1]} = {heads}")
    return hidden // heads


def _rope(config: Config, path: Path) -> Rope:
    """Rotary embeddings, as newer configs write them (``rope_parameters``) or older ones (``rope_theta``, scaling)."""
    table = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(table, dict):
        raise InputError(f"{path}: rope_scaling = {table!r}: must be a table")
    found = {"theta": config.get("rope_theta"), "kind": table.get("type")}
    found |= {ours: table[theirs] for theirs, ours in ROPE.items() if theirs in table}
    return rope_of({ours: value for ours, value in found.items() if value is not None}, path)


def _only(config: Config, path: Path, key: str, value: str) -> None:
    if config.get(key, value) != value:
        raise InputError(f"{path}: {key} = {config[key]!r}: is not supported; only {value!r} is")


def _refuse(config: Config, path: Path, only: Mapping[str, bool]) -> None:
    for key, allowed in only.items():
        if bool(config.get(key, allowed)) is not allowed:
            found, must = str(not allowed).lower(), str(allowed).lower()
            raise InputError(f"{path}: {key} = {found}: is not supported; only {must} is")


ARCHITECTURES: dict[str, Callable[[Config, Path], Read]] = {
    "llama": _llama,
    "mistral": _llama,
    "falcon": _falcon,
    "bloom": _bloom,
}
