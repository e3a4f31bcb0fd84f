"""Where a Hugging Face checkpoint keeps the weights of each operator, by architecture.

Linear layers are stored (out, in), so that they are transposed here; fused query-key-value matrices are taken apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from node.errors import InputError
from node.models.shape import Shape
from node.models.weights import Array

Tensors = Callable[[str], Array]  # by the checkpoint's name; ``KeyError`` where it has none

# of each family: our operator -> the checkpoint's module, {i} the number of the layer
_LLAMA = {
    "embedding": "model.embed_tokens",
    "attention_norm": "model.layers.{i}.input_layernorm",
    "q_proj": "model.layers.{i}.self_attn.q_proj",
    "k_proj": "model.layers.{i}.self_attn.k_proj",
    "v_proj": "model.layers.{i}.self_attn.v_proj",
    "o_proj": "model.layers.{i}.self_attn.o_proj",
    "ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "gate_proj": "model.layers.{i}.mlp.gate_proj",
    "up_proj": "model.layers.{i}.mlp.up_proj",
    "down_proj": "model.layers.{i}.mlp.down_proj",
    "final_norm": "model.norm",
    "lm_head": "lm_head",
}
_BLOOM = {
    "embedding": "transformer.word_embeddings",
    "embedding_norm": "transformer.word_embeddings_layernorm",
    "attention_norm": "transformer.h.{i}.input_layernorm",
    "qkv": "transformer.h.{i}.self_attention.query_key_value",
    "o_proj": "transformer.h.{i}.self_attention.dense",
    "ffn_norm": "transformer.h.{i}.post_attention_layernorm",
    "up_proj": "transformer.h.{i}.mlp.dense_h_to_4h",
    "down_proj": "transformer.h.{i}.mlp.dense_4h_to_h",
    "final_norm": "transformer.ln_f",
    "lm_head": "lm_head",
}
_FALCON_ONE_NORM = _BLOOM
_FALCON = _BLOOM | {"attention_norm": "transformer.h.{i}.ln_attn", "ffn_norm": "transformer.h.{i}.ln_mlp"}
NAMES = {"llama": _LLAMA, "bloom": _BLOOM, "falcon": _FALCON, "falcon-one-norm": _FALCON_ONE_NORM}
QKV = ("q_proj", "k_proj", "v_proj")
TABLES = ("embedding",)


def weights_of(operator: str, layer: int, shape: Shape, tensors: Tensors) -> Array:
    """The whole weights of an operator, (rows, columns) with a bias as one row more, float32.

    Raises ``InputError`` for a family whose checkpoints are not known, or a tensor that is missing.
    """
    if shape.family not in NAMES:
        raise InputError(f"model {shape.name}: checkpoints of {shape.family} are not known; {', '.join(NAMES)} are")
    names = NAMES[shape.family]
    fused = operator in QKV and "qkv" in names
    module = names["qkv" if fused else operator].format(i=layer)
    try:
        weight = np.asarray(tensors(f"{module}.weight"), dtype=np.float32)
        bias = _biases(operator, shape) and np.asarray(tensors(f"{module}.bias"), dtype=np.float32)
    except KeyError as error:
        raise InputError(f"model {shape.name}: its checkpoint has no tensor {error.args[0]}") from None
    parts = [weight] if isinstance(bias, bool) else [weight, bias]
    if fused:
        parts = [_of_fused(part, operator, shape) for part in parts]
    if operator in TABLES:
        return weight
    return np.vstack([part.T for part in parts])


def _biases(operator: str, shape: Shape) -> bool:
    """Whether the operator has a bias."""
    if operator.endswith("norm"):
        return shape.traits.layer_norm
    return shape.traits.bias and operator not in ("lm_head", *TABLES)


def _of_fused(part: Array, operator: str, shape: Shape) -> Array:
    """Queries, keys or values of a fused matrix or its bias, head by head.

    Rows are those of each KV head in turn: its query heads, its key, its value.
    """
    rest, at = part.shape[1:], QKV.index(operator)
    group = shape.heads // shape.kv_heads
    heads = part.reshape(shape.kv_heads, group + 2, shape.head_dim, *rest)
    chosen = heads[:, :group] if at == 0 else heads[:, group + at - 1 : group + at]
    return chosen.reshape(-1, *rest)
