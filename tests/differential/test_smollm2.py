"""A real model, SmolLM2-135M-Instruct in Q4_1: is it read as transformers and llama.cpp read it?

transformers brings dequantisation and a tokenizer of its own. It does not know that this vocabulary splits digits from
the spaces before them, and splits texts as GPT-2 does, so that llama.cpp has the last word: ``smollm2_tokens.json``
holds its tokens of each text (llama_tokenize with parse_special, of the wheel llama-cpp-cffi 0.4.42), with the file as
it is and with another ``tokenizer.ggml.pre`` in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.checkpoints.checkpoint import Checkpoint
from cluster.checkpoints.gguf_header import read_header
from cluster.checkpoints.gguf_tokenizer import gguf_tokenizer
from cluster.checkpoints.hugging_face_folder import read_tokenizer
from cluster.checkpoints.load import load_checkpoint
from cluster.checkpoints.mapped import map_file
from node.dataflow.batch import Batch
from node.dataflow.graph import Operator
from node.models.checkpoint import weights_of
from node.models.decoder import decoder
from node.models.weights import Array, shard
from tests.differential.conftest import run_reference
from tests.functional import group

ENTRIES = json.loads(Path(__file__).with_name("smollm2_tokens.json").read_text())
KNOWN: list[tuple[str, list[int]]] = [(entry["text"], entry["smollm"]) for entry in ENTRIES]
CHATS = [
    [{"role": "user", "content": "What is a dataflow architecture?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüezi 🙂\n"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello {{ x }}!"},
        {"role": "user", "content": "  <|im_end|> "},
    ],
]
PROMPT = "The capital of France is"
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
PARTS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm")
TENSORS = ["model.embed_tokens.weight", "model.norm.weight"]
TENSORS += [f"model.layers.{layer}.{part}.weight" for layer in (0, 13, 29) for part in PARTS]


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Checkpoint:
    return load_checkpoint(smollm2)


@pytest.fixture(scope="module")
def folder(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers makes of it."""
    folder = tmp_path_factory.mktemp("smollm2")
    asked = {"path": str(smollm2), "texts": [text for text, _ in KNOWN], "chats": CHATS, "prompt": PROMPT}
    (folder / "asked.json").write_text(json.dumps(asked | {"tensors": TENSORS}))
    return run_reference("smollm2.py", folder)


@pytest.fixture(scope="module")
def known(folder: Path) -> tuple[dict[str, object], dict[str, Array]]:
    return json.loads((folder / "answers.json").read_text()), dict(np.load(folder / "tensors.npz"))


def test_sizes(model: Checkpoint) -> None:
    shape = model.shape
    assert model.parameters == 134_515_008
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.ffn) == (30, 576, 9, 3, 1536)
    assert (shape.vocabulary, shape.context, shape.rope.theta, shape.tied_embeddings) == (49152, 8192, 1e5, True)


@pytest.mark.parametrize(("text", "tokens"), KNOWN, ids=[repr(text)[:24] for text, _ in KNOWN])
def test_tokens_are_llama_cpps(model: Checkpoint, text: str, tokens: list[int]) -> None:
    assert model.tokenizer.encode(text, special=True) == tokens
    assert model.tokenizer.decode(tokens, special=True) == text
    stream = model.tokenizer.stream()
    assert "".join(stream.push(token) for token in tokens) == model.tokenizer.decode(tokens)


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_other_ways_to_split_are_llama_cpps(smollm2: Path, pre: str) -> None:
    metadata, _ = read_header(map_file(smollm2), smollm2)
    found = gguf_tokenizer(metadata | {"tokenizer.ggml.pre": pre}, smollm2)
    for entry in ENTRIES:
        assert found.encode(entry["text"], special=True) == entry[pre], entry["text"]


def test_tokens_are_transformers(model: Checkpoint, known: tuple[dict[str, list[object]], object]) -> None:
    answers, _ = known
    same = 0
    for entry, found, decoded in zip(ENTRIES, answers["tokens"], answers["decoded"], strict=True):
        assert decoded == entry["text"]
        assert found == entry["gpt-2"]
        same += model.tokenizer.encode(entry["text"], special=True) == found
    assert same >= 30
    assert answers["end"] in model.tokenizer.ends


def test_chats_are_transformers(model: Checkpoint, known: tuple[dict[str, list[object]], object]) -> None:
    assert [model.tokenizer.chat(chat) for chat in CHATS] == known[0]["chats"]
    assert model.tokenizer.ends == {0, 2}  # llama.cpp's, too


def test_weights_are_transformers(model: Checkpoint, known: tuple[dict[str, object], dict[str, Array]]) -> None:
    """Queries and keys in half-rotation order among them."""
    answers, tensors = known
    assert answers["parameters"] == model.parameters
    for name in TENSORS:
        np.testing.assert_allclose(model.tensor(name), tensors[name], rtol=0, atol=1e-6, err_msg=name)


def test_logits_are_transformers(model: Checkpoint, known: tuple[dict[str, list[int]], dict[str, Array]]) -> None:
    """The model's graph on its real weights, on two sockets: Paris."""
    answers, tensors = known
    shape, tokens = model.shape, model.tokenizer.encode(PROMPT)

    def weights(rank: int, _: str, layer: int, op: Operator) -> Array:
        return shard(op, weights_of(op.name, layer, shape, model.tensor), shape, 2, rank)

    sockets = group(lambda rank: decoder(shape, 2, rank), weights, 2)
    sockets.run(Batch((len(tokens),), (0,)), tokens)
    found = sockets.made("head.all_logits")[0]
    assert tokens == answers["prompt"]
    expected = tensors["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))
    assert model.tokenizer.decode([int(found.argmax())]) == model.tokenizer.decode([int(expected.argmax())]) == " Paris"


def test_a_saved_tokenizer_is_transformers(known: tuple[dict[str, list[object]], object], folder: Path) -> None:
    """The same from a folder that transformers wrote: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
    answers, _ = known
    found = read_tokenizer(folder / "saved")
    assert [found.encode(text, special=True) for text, _ in KNOWN] == answers["tokens"]
    assert [found.chat(chat) for chat in CHATS] == answers["chats"]
    assert found.ends == {0, 2}
