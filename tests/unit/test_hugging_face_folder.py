"""Hugging Face folders: weights of every kind, in one file or several; tokenizers; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.checkpoints.load import load_checkpoint
from node.errors import InputError
from tests.small_folder import CONFIG, as_bytes, write_folder, write_safetensors, write_tokenizer
from tests.small_gguf import vocabulary, weights

WORDS = vocabulary()
END = WORDS.index("<|im_end|>")
TEMPLATE = "{% for m in messages %}{{ bos_token + m['content'] }}{% endfor %}"


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_every_kind_of_number(tmp_path: Path, kind: str) -> None:
    given = weights()
    found = load_checkpoint(write_folder(tmp_path / "small", given, kind))
    assert found.shape.name == "small" and sorted(found.stored) == sorted(given)
    for name, weight in given.items():
        made = found.tensor(name)
        assert made.dtype == np.float32 and as_bytes(made, kind) == as_bytes(weight, kind)
    assert found.parameters == sum(weight.size for weight in given.values())


def _sharded(folder: Path) -> dict[str, str]:
    """The model in two files and an index."""
    given = weights()
    write_folder(folder, given)
    (folder / "model.safetensors").unlink()
    names = sorted(given)
    files = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, held in files.items():
        write_safetensors(folder / file, {name: given[name] for name in held}, "F32")
    where = {name: file for file, held in files.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return where


def test_several_files(tmp_path: Path) -> None:
    where = _sharded(tmp_path)
    found = load_checkpoint(tmp_path)
    assert set(where.values()) == {"a.safetensors", "b.safetensors"}
    for name, weight in weights().items():
        np.testing.assert_array_equal(found.tensor(name), weight)


def test_buffers_of_integers_are_left_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, weights())
    extra = write_safetensors(tmp_path / "extra.safetensors", {"positions": np.arange(3, dtype=np.float32)}, "I64")
    index = {"weight_map": {"positions": extra.name, "model.norm.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "positions" not in load_checkpoint(folder).stored


def test_the_tokenizer_and_what_stands_beside_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, weights())
    write_tokenizer(folder)
    config = {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    found = load_checkpoint(folder).tokenizer
    assert found.decode(found.encode("the in 12 ü")) == "the in 12 ü"
    assert found.ends == {3, 4, END, WORDS.index("<|endoftext|>")}
    assert found.chat([{"role": "user", "content": "a"}]) == "<|im_start|>a"
    (folder / "chat_template.jinja").write_text("newer{{ eos_token }}")
    assert load_checkpoint(folder).tokenizer.chat([]) == "newer<|im_end|>"


def test_of_several_templates_the_default_one(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, weights())
    write_tokenizer(folder)
    templates = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert load_checkpoint(folder).tokenizer.chat([]) == "plain"


def _refusal(folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        load_checkpoint(folder)
    assert str(refused.value).startswith(str(folder)) and "\n" not in str(refused.value)
    return str(refused.value)


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _weights(kind: str) -> Callable[[Path], object]:
    return lambda folder: write_safetensors(folder / "model.safetensors", weights(), kind)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


YARN = {"type": "yarn", "factor": 4.0}
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_without("config.json"), "config.json: cannot be read as JSON: No such file"),
        (_without("model.safetensors"), "has no weights: neither model.safetensors nor"),
        (_text("config.json", '{"model_type": "mamba"}'), "model_type = 'mamba': must be one of llama"),
        (_text("config.json", json.dumps(CONFIG | {"hidden_size": 128})), "is (300, 64): must be (300, 128)"),
        (_text("config.json", json.dumps(CONFIG | {"tie_word_embeddings": False})), "has no tensor lm_head.weight"),
        (_text("config.json", json.dumps(CONFIG | {"rope_scaling": YARN})), "rope scaling 'yarn': is not supported"),
        (_text(INDEX, "[1]"), f"{INDEX}: must be a table"),
        (_text(INDEX, "{}"), f"{INDEX}: weight_map: must be a table"),
        (_text(INDEX, '{"weight_map": {"a": "none.safetensors"}}'), "none.safetensors: cannot be read: No such file"),
        (_text("model.safetensors", ""), "model.safetensors: cannot be read"),
        (_text("model.safetensors", "short"), "is no safetensors file, or its header is damaged"),
        (_text("model.safetensors", "no such file at all"), "is no safetensors file, or its header is damaged"),
        (_text("model.safetensors", "\x02\0\0\0\0\0\0\0[]"), "has no tensor model.embed_tokens.weight"),
        (_text("model.safetensors", '\x08\0\0\0\0\0\0\0{"a": 1}'), "is no safetensors file, or its header is damaged"),
        (_weights("F64"), "is F64: must be one of F32, F16, BF16"),
        (_cut, "is cut off"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path: Path, spoil: Callable[[Path], object], expected: str) -> None:
    spoil(write_folder(tmp_path, weights()))
    assert expected in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (None, "", "has no tokenizer.json"),
        ("tokenizer.json", "{}", "tokenizer.json: is no tokenizer"),
        ("tokenizer_config.json", "[", "tokenizer_config.json: cannot be read as JSON"),
        ("chat_template.jinja", "{% if %}", "its chat template cannot be read"),
    ],
)
def test_a_tokenizer_is_refused_when_it_is_asked_for(
    tmp_path: Path, file: str | None, text: str, expected: str
) -> None:
    folder = write_folder(tmp_path, weights())
    if file:
        write_tokenizer(folder)
        (folder / file).write_text(text)
    model = load_checkpoint(folder)
    with pytest.raises(InputError) as refused:
        _ = model.tokenizer
    assert expected in str(refused.value) and "\n" not in str(refused.value)
