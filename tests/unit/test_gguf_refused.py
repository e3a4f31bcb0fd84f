"""GGUF files that cannot be served: one line that says what, and in which file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from cluster.checkpoints.gguf_tokenizer import gguf_tokenizer
from cluster.checkpoints.load import load_checkpoint
from node.errors import InputError
from tests.small_gguf import MERGES, vocabulary, weights, write


def _refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        load_checkpoint(path)
    message = str(refused.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"architecture": "qwen2"}, "general.architecture = 'qwen2': must be 'llama'"),
        ({"kind": Kind.Q5_0}, "is Q5_0: must be one of F32, F16, BF16, Q8_0, Q4_0, Q4_1"),
        ({"without": ["token_embd.weight"]}, "has no tensor token_embd.weight"),
        ({"without": ["blk.1.ffn_up.weight"]}, "has no tensor model.layers.1.mlp.up_proj.weight"),
        ({"numbers": {"feed_forward_length": 128}}, "is (96, 64): must be (128, 64)"),
        ({"numbers": {"block_count": 3}}, "has no tensor model.layers.2."),
        ({"numbers": {"attention.head_count": 3}}, "llama.attention.head_count = 3: must be a multiple of"),
        ({"numbers": {"attention.head_count": 0}}, "llama.attention.head_count = 0: must be a positive int"),
        ({"numbers": {"rope.dimension_count": 8}}, "llama.rope.dimension_count = 8: is not supported"),
        ({"numbers": {"rope.scaling.type": "yarn"}}, "llama.rope.scaling.type = 'yarn': is not supported"),
        ({"numbers": {"expert_count": 8}}, "llama.expert_count: is not supported"),
    ],
)
def test_another_model_than_a_whole_llama(tmp_path: Path, given: Mapping[str, object], expected: str) -> None:
    assert expected in _refusal(write(tmp_path / "small.gguf", weights(), **given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.0.attn_q.bias", "tensor blk.0.attn_q.bias: is not part of the Llama architecture"),
        ("blk.0.ffn_gate_exps.weight", "tensor blk.0.ffn_gate_exps.weight: is not part of the Llama"),
        ("rope_freqs.weight", "tensor rope_freqs.weight: is not supported; only Llama 3.1's is"),
    ],
)
def test_a_tensor_that_would_be_left_out(tmp_path: Path, name: str, expected: str) -> None:
    given = weights() | {name: np.linspace(1, 3, 8, dtype=np.float32)}
    assert expected in _refusal(write(tmp_path / "small.gguf", given))


def _keep(size: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:size]


def _renamed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new)


def _with(at: int, what: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:at] + what + content[at + len(what) :]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_keep(0), "cannot be read"),
        (_keep(10), "its header breaks off or is damaged at byte 0"),
        (_keep(3000), "its header breaks off or is damaged at byte"),
        (_keep(-1), "but tensor"),
        (_renamed(b"blk.1.attn_norm", b"blk.0.attn_norm"), "has 20 tensors, but 19 names for them"),
        (_with(0, b"PK\x03\x04"), "is not a GGUF file: it begins with b'PK\\x03\\x04'"),
        (_with(4, b"\x01"), "GGUF version 1: must be 2 or 3"),
        (_with(4, b"\0\0\0\x03"), "GGUF version 50331648: must be 2 or 3, little-endian"),
        (_with(8, b"\xff" * 8), "its header breaks off or is damaged"),
        (_with(16, b"\xff" * 8), "its header breaks off or is damaged"),
        (_with(24, b"\xff" * 8), "a text of 18,446,744,073,709,551,615 bytes"),
    ],
)
def test_damaged_files(tmp_path: Path, change: Callable[[bytes], bytes], expected: str) -> None:
    path = write(tmp_path / "small.gguf", weights())
    path.write_bytes(change(path.read_bytes()))
    assert expected in _refusal(path)


def test_wherever_a_header_is_cut_it_is_one_line(tmp_path: Path) -> None:
    content = write(tmp_path / "small.gguf", weights()).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(1, 12_000, 61):
        path.write_bytes(content[:size])
        assert _refusal(path)


def test_nothing_at_the_path(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none.gguf") == "no such file or folder; give a GGUF file or a Hugging Face folder"


WORDS = vocabulary()
KNOWN = {"model": "gpt2", "pre": "smollm", "tokens": WORDS, "token_type": [1] * len(WORDS), "merges": MERGES}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model", "bert", "model = 'bert': must be one of gpt2, llama"),
        ("pre", "qwen2", "pre = 'qwen2': must be one of gpt-2, smollm"),
        ("pre", None, "pre = None: must be one of"),
        ("tokens", [1, 2], "tokens: must be a list of str"),
        ("token_type", [1], "token_type: has 1 entries, tokenizer.ggml.tokens 300"),
        ("merges", ["a zz"], "is no vocabulary"),
        ("merges", ["a"], "is no vocabulary"),
        ("merges", None, "merges: must be a list of str"),
        ("eos_token_id", 300, "eos_token_id = 300: must be below 300"),
    ],
)
def test_vocabularies(key: str, value: object, expected: str) -> None:
    metadata = {f"tokenizer.ggml.{name}": entry for name, entry in (KNOWN | {key: value}).items() if entry is not None}
    with pytest.raises(InputError) as refused:
        gguf_tokenizer(metadata, Path("x.gguf"))
    assert str(refused.value).startswith("x.gguf: tokenizer.ggml") and expected in str(refused.value)
    assert "\n" not in str(refused.value)
