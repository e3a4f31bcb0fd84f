"""GGUF files: do the weights come back, under their names, in Hugging Face's order?"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from cluster.checkpoints.gguf_header import read_header
from cluster.checkpoints.load import load_checkpoint
from cluster.checkpoints.mapped import map_file
from node.dataflow.attributes import Rope
from node.models.weights import Array
from tests import small_gguf
from tests.small_gguf import HEAD, HIDDEN, KV_HEADS, WORDS, weights, write

# of each format: the largest error over a block of 32, as a share of its largest number or (Q4_1) of its range
ERROR = {Kind.Q8_0: 0.5 / 127, Kind.Q4_0: 1 / 8, Kind.Q4_1: 0.5 / 15}
F16 = 2.0**-10  # the scale of a block is an F16


def _close(found: Array, expected: Array, kind: Kind) -> None:
    assert found.dtype == np.float32 and found.shape == expected.shape
    if expected.ndim == 1 or kind == Kind.F32:
        np.testing.assert_array_equal(found, expected)
    elif kind == Kind.F16:
        np.testing.assert_array_equal(found, expected.astype(np.float16))
    elif kind == Kind.BF16:
        assert not (found.view(np.uint32) & 0xFFFF).any()
        np.testing.assert_allclose(found, expected, rtol=2**-8)
    else:
        blocks, made = expected.reshape(-1, 32), found.reshape(-1, 32)
        span = np.ptp(blocks, axis=1) if kind == Kind.Q4_1 else np.abs(blocks).max(axis=1)
        allowed = ERROR[kind] * span + 2 * F16 * np.abs(blocks).max(axis=1)
        assert (np.abs(blocks - made).max(axis=1) <= allowed).all()
        assert (made != blocks).any()


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1])
def test_every_format_comes_back_under_its_hugging_face_name(tmp_path: Path, kind: Kind) -> None:
    given = weights()
    found = load_checkpoint(write(tmp_path / "small.gguf", given, kind))
    assert sorted(found.stored) == sorted(given)
    for name, weight in given.items():
        _close(found.tensor(name), weight, kind)
    assert found.parameters == sum(weight.size for weight in given.values())


def test_the_shape_is_that_of_the_metadata(tmp_path: Path) -> None:
    shape = load_checkpoint(write(tmp_path / "small.gguf", weights())).shape
    assert (shape.name, shape.layers, shape.hidden, shape.heads, shape.kv_heads) == ("small", 2, 64, 4, KV_HEADS)
    assert (shape.head_dim, shape.ffn, shape.vocabulary, shape.context) == (HEAD, 96, WORDS, 128)
    assert shape.tied_embeddings and shape.rope == Rope(theta=5e4)
    assert shape.norm_epsilon == pytest.approx(1e-5)


def test_a_head_of_its_own_is_no_tied_embedding(tmp_path: Path) -> None:
    given = weights()
    given["lm_head.weight"] = -given["model.embed_tokens.weight"]
    found = load_checkpoint(write(tmp_path / "small.gguf", given))
    assert not found.shape.tied_embeddings
    np.testing.assert_array_equal(found.tensor("lm_head.weight"), given["lm_head.weight"])


def test_a_tensor_that_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"lm_head\.weight"):
        load_checkpoint(write(tmp_path / "small.gguf", weights())).tensor("lm_head.weight")


def test_llama_3_1s_factors_are_its_rope(tmp_path: Path) -> None:
    """llama.cpp's converter writes, for each frequency, by how much it is divided."""
    frequencies = 5e4 ** -(np.arange(0, HEAD, 2) / HEAD)
    factors = []
    for wavelength in 2 * np.pi / frequencies:
        smooth = (8192 / wavelength - 1) / (4 - 1)
        slowed = 1 / ((1 - smooth) / 8 + smooth)
        factors.append(1.0 if wavelength < 8192 / 4 else 8.0 if wavelength > 8192 else slowed)
    assert len(set(factors)) == 3  # kept, slowed, and one between
    given = weights() | {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    rope = load_checkpoint(write(tmp_path / "small.gguf", given)).shape.rope
    assert rope == Rope(theta=5e4, kind="llama3", factor=8.0, low=1.0, high=4.0, original=8192)


def test_linear_scaling(tmp_path: Path) -> None:
    numbers = {"rope.scaling.type": "linear", "rope.scaling.factor": 4}
    rope = load_checkpoint(write(tmp_path / "small.gguf", weights(), numbers=numbers)).shape.rope
    assert rope == Rope(theta=5e4, kind="linear", factor=4)


def test_the_header_is_what_the_packages_reader_finds(tmp_path: Path) -> None:
    path = write(tmp_path / "small.gguf", weights(), Kind.Q4_1)
    known = gguf.GGUFReader(path)
    metadata, places = read_header(map_file(path), path)
    fields = {name: field.contents() for name, field in known.fields.items() if not name.startswith("GGUF.")}
    assert metadata == fields
    expected = {entry.name: (entry.tensor_type, entry.data_offset, entry.n_bytes) for entry in known.tensors}
    assert {name: (place.kind, place.offset, place.size) for name, place in places.items()} == expected


def test_a_model_larger_than_memory_is_opened(tmp_path: Path) -> None:
    """48 GiB, of which the disk holds the header: a file with a hole behind it."""
    path, ffn = write(tmp_path / "small.gguf", weights()), 2**25
    _, places = read_header(map_file(path), path)
    wide = {"ffn_gate": (ffn, HIDDEN), "ffn_up": (ffn, HIDDEN), "ffn_down": (HIDDEN, ffn)}
    writer = gguf.GGUFWriter(tmp_path / "large.gguf", "llama")
    sizes = {"block_count": 2, "embedding_length": HIDDEN, "feed_forward_length": ffn, "context_length": 128}
    for key, value in (sizes | {"attention.head_count": 4, "attention.head_count_kv": KV_HEADS}).items():
        writer.add_uint32(f"llama.{key}", value)
    end = 0
    for name, place in places.items():
        shape = next((size for part, size in wide.items() if part in name), place.shape)
        end += 4 * int(np.prod(shape))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with (tmp_path / "large.gguf").open("r+b") as file:
        file.truncate(file.seek(0, 2) + end + 32)
    found = load_checkpoint(tmp_path / "large.gguf")
    assert 4 * found.parameters > 48 * 2**30
    assert not found.tensor("model.layers.1.self_attn.q_proj.weight").any()


def test_words_and_chat(tmp_path: Path) -> None:
    """Single digits, whole control tokens, letters merged in the order of the merges."""
    found = load_checkpoint(write(tmp_path / "small.gguf", weights())).tokenizer
    words = small_gguf.vocabulary()
    encoded = [words[token] for token in found.encode("the in  12<|im_end|>", special=True)]
    assert encoded == ["t", "he", "Ġ", "in", "ĠĠ", "1", "2", "<|im_end|>"]
    assert found.decode(found.encode("the in  12<|im_end|>", special=True)) == "the in  12"
    assert found.decode([words.index("<|im_end|>")], special=True) == "<|im_end|>"
    assert found.ends == {words.index("<|endoftext|>"), words.index("<|im_end|>")}
    assert found.chat([{"role": "user", "content": "hé"}]) == "<|im_start|>user\nhé<|im_end|>"
    assert found.encode_chat([{"role": "user", "content": "hé"}])[0] == words.index("<|im_start|>")
