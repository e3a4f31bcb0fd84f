"""Do the graphs compute what the models are? Their numpy meaning against the transformers library, in float32.

The graphs are those that are timed, compiled and cut into kernels and shards as there; weights are random, read from a
checkpoint by its own names. Logits of a prefill of three prompts at once, then of decode steps on the KV cache.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from node.dataflow.batch import Batch
from node.dataflow.fusion import LEVELS
from node.dataflow.graph import Operator
from node.models.checkpoint import weights_of
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import Shape, VisionShape
from node.models.training import train
from node.models.weights import shard
from tests.functional import Array, Group, group, owners

PROMPTS, STEPS = 3, 4
DECODERS = ("llama", "llama-3.1", "mistral", "falcon-40b", "falcon-7b", "bloom")
GPT = {
    "embedding": "transformer.wte",
    "positions": "transformer.wpe",
    "attention_norm": "transformer.h.{i}.ln_1",
    "q_proj": "transformer.h.{i}.attn.c_attn",
    "k_proj": "transformer.h.{i}.attn.c_attn",
    "v_proj": "transformer.h.{i}.attn.c_attn",
    "o_proj": "transformer.h.{i}.attn.c_proj",
    "ffn_norm": "transformer.h.{i}.ln_2",
    "up_proj": "transformer.h.{i}.mlp.c_fc",
    "down_proj": "transformer.h.{i}.mlp.c_proj",
    "final_norm": "transformer.ln_f",
}
CLIP = "model.vision_tower.encoder.layers.{i}"
LLAVA = {
    "vision_attention_norm": f"{CLIP}.layer_norm1",
    "vision_q_proj": f"{CLIP}.self_attn.q_proj",
    "vision_k_proj": f"{CLIP}.self_attn.k_proj",
    "vision_v_proj": f"{CLIP}.self_attn.v_proj",
    "vision_o_proj": f"{CLIP}.self_attn.out_proj",
    "vision_ffn_norm": f"{CLIP}.layer_norm2",
    "vision_up_proj": f"{CLIP}.mlp.fc1",
    "vision_down_proj": f"{CLIP}.mlp.fc2",
    "pre_norm": "model.vision_tower.pre_layrnorm",
    "projector_1": "model.multi_modal_projector.linear_1",
    "projector_2": "model.multi_modal_projector.linear_2",
}


def _gpt(operator: str, layer: int, tensors: dict[str, Array]) -> Array:
    """GPT-2 stores linear layers (in, out), queries, keys and values one after another."""
    module = GPT[operator].format(i=layer)
    weight = tensors[f"{module}.weight"]
    if operator in ("embedding", "positions"):
        return weight
    whole = np.vstack([weight, tensors[f"{module}.bias"]])
    parts = ("q_proj", "k_proj", "v_proj")
    return np.split(whole, 3, axis=1)[parts.index(operator)] if operator in parts else whole


def _llava(op: Operator, symbol: str, layer: int, shape: Shape, tensors: dict[str, Array]) -> Array:
    """The vision tower's names; those of the language model are Llama's."""
    assert shape.vision is not None
    if op.name in LLAVA:
        module = LLAVA[op.name].format(i=shape.vision.layers - 1 if symbol.startswith("vision_last") else layer)
        return np.vstack([tensors[f"{module}.weight"].T, tensors[f"{module}.bias"]])
    embeddings = "model.vision_tower.embeddings"
    if op.name == "patch_embedding":
        weight = tensors[f"{embeddings}.patch_embedding.weight"]
        return weight.reshape(len(weight), -1).T
    if op.name == "positions":
        return np.vstack([tensors[f"{embeddings}.class_embedding"], tensors[f"{embeddings}.position_embedding.weight"]])
    if op.name == "post_norm":  # nobody reads what it makes
        return np.ones((2, shape.vision.hidden), dtype=np.float32)
    return weights_of(op.name, layer, shape, lambda name: tensors[name.replace("model.", "model.language_model.")])


def _close(found: Array, expected: Array, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(float(np.abs(expected).max()), 1e-3))


def _served(folder: Path, degree: int, level: str) -> tuple[Group, Shape]:
    shape, tensors = load_shape(str(folder / "config.json")), dict(np.load(folder / "weights.npz"))

    def weights(rank: int, symbol: str, layer: int, op: Operator) -> Array:
        return shard(op, weights_of(op.name, layer, shape, tensors.__getitem__), shape, degree, rank)

    return group(lambda rank: decoder(shape, degree, rank), weights, degree, level), shape


@pytest.mark.parametrize(
    ("name", "degree", "level"),
    [
        *((name, 1, level) for name in DECODERS for level in LEVELS),
        *((name, 8, "fused") for name in DECODERS),
        *(("llama", degree, level) for degree in (2, 3, 5) for level in ("unfused", "looped")),
        *((name, 16, "fused") for name in ("llama-3.1", "bloom")),
    ],
)
def test_logits_are_those_of_the_library(answers: Path, name: str, degree: int, level: str) -> None:
    """9 heads on 8 and 16 sockets: uneven shards, KV heads on several sockets, sockets without heads."""
    sockets, shape = _served(answers / name, degree, level)
    known = np.load(answers / name / "answers.npz")
    prompts = [known[f"prompt{i}"] for i in range(PROMPTS)]
    lengths, symbol = tuple(map(len, prompts)), "head.all_logits" if degree > 1 else "head.logits"
    sockets.run(Batch(lengths, (0,) * PROMPTS, shape.sliding_window), np.concatenate(prompts))
    found = [sockets.made(symbol)]
    for step in range(STEPS - 1):
        before = tuple(length + step for length in lengths)
        tokens = [known[f"tokens{i}"][step] for i in range(PROMPTS)]
        sockets.run(Batch((1,) * PROMPTS, before, shape.sliding_window), tokens, decoding=True)
        found.append(sockets.made(symbol))
    expected = np.stack([known[f"logits{i}"] for i in range(PROMPTS)], axis=1)
    _close(np.stack(found), expected)
    assert (np.stack(found).argmax(axis=2) == expected.argmax(axis=2)).all()


@pytest.mark.parametrize(
    ("name", "degree", "level"),
    [
        *((name, 1, "unfused") for name in (*DECODERS, "gpt")),
        *((name, degree, level) for name in ("llama", "gpt") for degree, level in ((3, "fused"), (8, "looped"))),
        ("llama-3.1", 5, "fused"),
        ("falcon-40b", 8, "fused"),
    ],
)
def test_gradients_are_those_of_autograd(answers: Path, name: str, degree: int, level: str) -> None:
    """One training step: forward, loss, backward, each weight's gradient on each socket."""
    folder = answers / name
    tensors, known = dict(np.load(folder / "weights.npz")), dict(np.load(folder / "gradients.npz"))
    if name == "gpt":
        shape = Shape("gpt", 2, 36, 9, 9, 4, 144, 60, 64, family="gpt", tied_embeddings=True)
    else:
        shape = load_shape(str(folder / "config.json"))

    def of(rank: int, layer: int, op: Operator, source: dict[str, Array]) -> Array:
        if op.function == "adam":
            return np.zeros(0, dtype=np.float32)
        whole = _gpt(op.name, layer, source) if name == "gpt" else weights_of(op.name, layer, shape, source.__getitem__)
        return shard(op, whole, shape, degree, rank)

    sockets = group(lambda r: train(shape, degree, r), lambda r, _, layer, op: of(r, layer, op, tensors), degree, level)
    prompts = [np.load(folder / "answers.npz")[f"prompt{i}"] for i in range(PROMPTS)]
    targets = np.concatenate([known[f"targets{i}"] for i in range(PROMPTS)])
    batch = Batch(tuple(map(len, prompts)), (0,) * PROMPTS, shape.sliding_window)
    sockets.run(batch, np.concatenate(prompts), targets)
    _close(sockets.made("head.loss").mean(), known["loss"])
    for rank in range(degree):
        for symbol, layer, op in owners(sockets.graphs[rank]):
            if op.function != "adam":
                expected = of(rank, layer, op, known)
                found = sockets.made(_gradient(symbol, layer, op, shape), rank)
                rows = len(expected) - (rank > 0 and op.name in ("o_proj", "down_proj") and shape.traits.bias)
                _close(found.reshape(-1, expected.shape[1])[:rows], expected[:rows], 2e-5)


def _gradient(symbol: str, layer: int, op: Operator, shape: Shape) -> str:
    """The symbol of a weight's gradient."""
    block = symbol.split(".", 1)[0]
    made_in = {"embedding": "embedding_backward", "head": "head"}.get(
        block, f"layer_backward[{shape.layers - 1 - layer}]"
    )
    return f"{made_in}.{op.name}_weight_gradient"


@pytest.mark.parametrize(("degree", "level"), [(1, "unfused"), (1, "fused"), (2, "looped"), (3, "fused")])
def test_llava_sees_what_the_library_sees(llava_answers: Path, degree: int, level: str) -> None:
    """Two prompts with an image each: the tower, the projector, patches in their places, the language model."""
    known, tensors = np.load(llava_answers / "answers.npz"), dict(np.load(llava_answers / "weights.npz"))
    vision = VisionShape(layers=3, hidden=20, heads=5, ffn=30, image=12, patch=4)
    shape = Shape("llava", 2, 36, 9, 9, 4, 50, 60, 64, vision=vision)

    def weights(rank: int, symbol: str, layer: int, op: Operator) -> Array:
        return shard(op, _llava(op, symbol, layer, shape, tensors), shape, degree, rank)

    sockets = group(lambda rank: decoder(shape, degree, rank), weights, degree, level)
    images, size = known["pixels"], vision.image // vision.patch
    patches = images.reshape(2, 3, size, vision.patch, size, vision.patch).transpose(0, 2, 4, 1, 3, 5)
    for content in sockets.contents:
        content.memory["patches.pixels"] = patches.reshape(2, -1)
    prompts = [known[f"prompt{i}"] for i in range(2)]
    sockets.run(Batch(tuple(map(len, prompts)), (0, 0)), np.concatenate(prompts))
    _close(sockets.made("head.all_logits" if degree > 1 else "head.logits"), known["logits"])
