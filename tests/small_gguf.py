"""Small GGUF files of a Llama, written by the gguf package as llama.cpp's converter does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from node.models.weights import Array

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN, WORDS = 2, 64, 4, 2, 16, 96, 300
LETTERS = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]


def vocabulary() -> list[str]:
    """GPT-2's 256 letters for bytes, some merged ones, and control tokens."""
    merged = ["Ġt", "he", "Ġthe", "in", "ĠĠ", "12"]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*LETTERS, *merged, *control]
    return [*words, *(f"<unused{i}>" for i in range(WORDS - len(words)))]


MERGES = ["Ġ t", "h e", "Ġt he", "i n", "Ġ Ġ", "1 2"]
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + eos_token }}{% endfor %}"


def weights() -> dict[str, Array]:
    """Random ones by their Hugging Face names, (out, in)."""
    random = np.random.default_rng(7)
    q, kv = HEADS * HEAD, KV_HEADS * HEAD
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (WORDS, HIDDEN), "model.norm": (HIDDEN,)}
    for i in range(LAYERS):
        layer = {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
        layer |= {"self_attn.q_proj": (q, HIDDEN), "self_attn.o_proj": (HIDDEN, q)}
        layer |= {f"self_attn.{name}_proj": (kv, HIDDEN) for name in "kv"}
        layer |= {"mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN), "mlp.down_proj": (HIDDEN, FFN)}
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def named(name: str) -> str:
    """The GGUF name of a Hugging Face tensor, as the package maps it."""
    found = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS).get_name(name, try_suffixes=(".weight",))
    assert found is not None, name
    return found


def permuted(weight: Array, heads: int) -> Array:
    """What llama.cpp's convert_hf_to_gguf.py does to queries and keys."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write(
    path: Path,
    tensors: Mapping[str, Array],
    kind: Kind = Kind.F32,
    architecture: str = "llama",
    numbers: Mapping[str, object] | None = None,
    without: Sequence[str] = (),
) -> Path:
    """A GGUF of ``tensors`` (Hugging Face names) in ``kind``, norms in F32; ``numbers``: more uint32 of ``llama.``."""
    writer = gguf.GGUFWriter(path, architecture)
    sizes = {"block_count": LAYERS, "embedding_length": HIDDEN, "feed_forward_length": FFN, "context_length": 128}
    sizes |= {"attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, **(numbers or {})}
    for key, value in sizes.items():
        if isinstance(value, str):
            writer.add_string(f"llama.{key}", value)
        else:
            writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32("llama.rope.freq_base", 5e4)
    words = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([3 if word.startswith("<|") else 1 for word in words])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(words.index("<|im_end|>"))
    writer.add_chat_template(TEMPLATE)
    for name, weight in tensors.items():
        called = name if name == "rope_freqs.weight" or name.startswith("blk.") else named(name)
        if called in without:
            continue
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        stored = permuted(weight, heads) if heads else weight
        if stored.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(called, stored)
        else:
            writer.add_tensor(called, gguf.quantize(stored, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
