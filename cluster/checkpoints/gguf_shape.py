"""The shape of a Llama from a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from node.dataflow.attributes import Rope
from node.dataflow.meaning.pointwise import frequencies
from node.errors import InputError
from node.models.shape import Shape, checked_shape, rope_of
from node.models.weights import Array

WRITTEN = {
    "layers": "llama.block_count",
    "hidden": "llama.embedding_length",
    "heads": "llama.attention.head_count",
    "kv_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.attention.key_length",
    "ffn": "llama.feed_forward_length",
    "vocabulary": "tokenizer.ggml.tokens",
    "context": "llama.context_length",
    "norm_epsilon": "llama.attention.layer_norm_rms_epsilon",
}
THETA, DIMENSIONS = "llama.rope.freq_base", "llama.rope.dimension_count"
SCALING, FACTOR = "llama.rope.scaling.type", "llama.rope.scaling.factor"


def gguf_shape(metadata: Mapping[str, object], path: Path, vocabulary: int, factors: Array | None, tied: bool) -> Shape:
    """The shape; ``vocabulary``: rows of the embedding, ``factors``: Llama 3.1's slowing of each frequency.

    Raises ``InputError``.
    """
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise InputError(f"{path}: general.architecture = {architecture!r}: must be 'llama'")
    if metadata.get("llama.expert_count"):
        raise InputError(f"{path}: llama.expert_count: is not supported; only a dense model is")
    values = {ours: metadata.get(theirs) for ours, theirs in WRITTEN.items()}
    values |= {"name": path.stem, "vocabulary": vocabulary, "tied_embeddings": tied}
    values["kv_heads"] = values["heads"] if values["kv_heads"] is None else values["kv_heads"]
    hidden, heads = values["hidden"], values["heads"]
    if values["head_dim"] is None and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        values["head_dim"] = hidden // heads
    present = {key: value for key, value in values.items() if value is not None}
    shape = checked_shape(present | {"rope": _rope(metadata, path)}, path, WRITTEN)
    for key in (DIMENSIONS, "llama.attention.value_length"):
        if metadata.get(key, shape.head_dim) != shape.head_dim:
            raise InputError(
                f"{path}: {key} = {metadata[key]!r}: is not supported; only the heads' {shape.head_dim} is"
            )
    return shape if factors is None else _slowed(shape, factors, path)


def _rope(metadata: Mapping[str, object], path: Path) -> Rope:
    """Rotary embeddings without Llama 3.1's factors, which are a tensor."""
    kind = metadata.get(SCALING, "none")
    if kind not in ("none", "linear"):
        raise InputError(f"{path}: {SCALING} = {kind!r}: is not supported; none and linear are")
    found = {"theta": metadata.get(THETA)}
    if kind == "linear":
        found |= {"kind": kind, "factor": metadata.get(FACTOR)}
    return rope_of({ours: value for ours, value in found.items() if value is not None}, path)


def _slowed(shape: Shape, factors: Array, path: Path) -> Shape:
    """With rotary embeddings slowed as ``factors`` say, if that is Llama 3.1's way of it."""
    plain = frequencies(shape.rope, shape.head_dim)
    rope = Rope(theta=shape.rope.theta, kind="llama3", factor=round(float(factors.max(initial=1.0)), 4))
    made = plain / frequencies(rope, shape.head_dim)
    if factors.shape != made.shape or not np.allclose(factors, made, rtol=1e-4):
        raise InputError(
            f"{path}: tensor rope_freqs.weight: is not supported; only Llama 3.1's is "
            f"(low 1, high 4, of {rope.original} tokens)"
        )
    values = {name: getattr(shape, name) for name in Shape.__dataclass_fields__}
    return Shape(**{**values, "rope": rope})
