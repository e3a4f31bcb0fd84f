"""A Llama from a GGUF file: its tensors under their Hugging Face names, dequantised by the ``gguf`` package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, dequantize

from cluster.checkpoints.checkpoint import Checkpoint, Stored
from cluster.checkpoints.gguf_header import Place, read_header
from cluster.checkpoints.gguf_shape import gguf_shape
from cluster.checkpoints.gguf_tokenizer import gguf_tokenizer
from cluster.checkpoints.mapped import Data, map_file
from node.errors import InputError
from node.models.shape import Shape
from node.models.weights import Array

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
WHOLE = {"token_embd.weight": "model.embed_tokens", "output_norm.weight": "model.norm", "output.weight": "lm_head"}
OF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
FACTORS = "rope_freqs.weight"


def read_gguf(path: Path) -> Checkpoint:
    """The checkpoint of a GGUF file; raises ``InputError``."""
    data = map_file(path)
    metadata, places = read_header(data, path)
    if metadata.get("split.count", 1) not in (0, 1):
        raise InputError(f"{path}: split.count = {metadata['split.count']!r}: must be one file; merge it first")
    if metadata.get("general.architecture") == "llama" and "token_embd.weight" not in places:
        raise InputError(f"{path}: has no tensor token_embd.weight")
    factors = _read(data, places[FACTORS]) if FACTORS in places else None
    vocabulary = places["token_embd.weight"].shape[0] if "token_embd.weight" in places else 0
    shape = gguf_shape(metadata, path, vocabulary, factors, tied="output.weight" not in places)
    return Checkpoint(path, shape, _stored(data, places, shape, path), partial(gguf_tokenizer, metadata, path))


def _stored(data: Data, places: Mapping[str, Place], shape: Shape, path: Path) -> dict[str, Stored]:
    """The tensors by their Hugging Face names; one that no Llama has is refused, not left out."""
    found = {}
    for name, place in places.items():
        if name == FACTORS:
            continue
        layer = LAYER.fullmatch(name)
        if name not in WHOLE and (layer is None or layer[2] not in OF_LAYER):
            raise InputError(f"{path}: tensor {name}: is not part of the Llama architecture")
        module = WHOLE[name] if layer is None else f"model.layers.{layer[1]}.{OF_LAYER[layer[2]]}"
        heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(layer[2], 0) if layer else 0
        if place.kind.name not in KINDS:
            raise InputError(f"{path}: tensor {name} is {place.kind.name}: must be one of {', '.join(KINDS)}")
        found[f"{module}.weight"] = Stored(place.shape, partial(_read, data, place, heads))
    return found


def _read(data: Data, place: Place, heads: int = 0) -> Array:
    """The tensor in float32; of queries and keys with so many ``heads``, rows as Hugging Face has them."""
    stored = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(place.kind, np.uint8)
    count = place.size // np.dtype(stored).itemsize
    raw = np.frombuffer(data, stored, count, place.offset).reshape(*place.shape[:-1], -1)
    made = dequantize(raw, place.kind).astype(np.float32, copy=False).reshape(place.shape)
    return _halves(made, heads) if heads else made


def _halves(rows: Array, heads: int) -> Array:
    """Rows of each head from pairs (2i, 2i + 1), which GGUF rotates together, to halves (i, i + head_dim / 2)."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
