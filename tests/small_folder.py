"""Hugging Face folders written by hand: the table of a safetensors file, then its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from node.models.weights import Array
from tests.small_gguf import FFN, HEADS, HIDDEN, KV_HEADS, LAYERS, MERGES, WORDS, vocabulary

CONFIG: dict[str, object] = {"model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN}
CONFIG |= {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "intermediate_size": FFN}
CONFIG |= {"vocab_size": WORDS, "max_position_embeddings": 128, "tie_word_embeddings": True}


def as_bytes(weight: Array, kind: str) -> bytes:
    """A weight in F32, F16 or BF16 (cut, not rounded); I64 stands for what is no weight."""
    if kind == "BF16":
        return (weight.view(np.uint32) >> 16).astype("<u2").tobytes()
    return weight.astype({"F32": "<f4", "F16": "<f2", "I64": "<i8", "F64": "<f8"}[kind]).tobytes()


def write_safetensors(path: Path, tensors: Mapping[str, Array], kind: str) -> Path:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, weight in tensors.items():
        made = as_bytes(weight, kind)
        offsets = [len(content), len(content) + len(made)]
        table[name] = {"dtype": kind, "shape": list(weight.shape), "data_offsets": offsets}
        content += made
    header = json.dumps(table).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    return path


def write_tokenizer(folder: Path) -> None:
    """The vocabulary of ``small_gguf``."""
    words = {word: number for number, word in enumerate(vocabulary())}
    made = Tokenizer(models.BPE(vocab=words, merges=[tuple(pair.split(" ")) for pair in MERGES]))
    made.add_special_tokens([word for word in words if word.startswith("<|")])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))


def write_folder(folder: Path, tensors: Mapping[str, Array], kind: str = "F32", config: object = None) -> Path:
    """A model without a tokenizer."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    write_safetensors(folder / "model.safetensors", tensors, kind)
    return folder
