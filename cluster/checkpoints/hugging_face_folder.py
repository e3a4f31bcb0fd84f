"""A model from a Hugging Face folder: config.json, *.safetensors, tokenizer.json and what stands beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import tokenizers

from cluster.checkpoints.chat_template import ChatTemplate
from cluster.checkpoints.checkpoint import Checkpoint, Stored
from cluster.checkpoints.safetensors_file import read_safetensors
from cluster.checkpoints.tokenizer import Tokenizer, end_words
from node.errors import InputError
from node.models.hugging_face import read_config_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PREFIX = "transformer."  # BLOOM's published files leave it out
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def read_folder(path: Path) -> Checkpoint:
    """The checkpoint of a folder; raises ``InputError``."""
    shape = read_config_json(path / "config.json")
    stored: dict[str, Stored] = {}
    for file in _files(path):
        stored |= read_safetensors(file)
    if shape.family == "bloom" and not any(name.startswith(PREFIX) for name in stored):
        stored = {PREFIX + name: tensor for name, tensor in stored.items()}
    return Checkpoint(path, shape, stored, partial(read_tokenizer, path))


def _files(path: Path) -> list[Path]:
    """The folder's weights: one file, or those that an index names."""
    if (path / INDEX).exists():
        table = _json(path / INDEX).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(file, str) for file in table.values()):
            raise InputError(f"{path / INDEX}: weight_map: must be a table of names of files")
        return [path / file for file in sorted(set(table.values()))]
    if not (path / SINGLE).exists():
        raise InputError(f"{path}: has no weights: neither {SINGLE} nor {INDEX}")
    return [path / SINGLE]


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder; raises ``InputError``."""
    file = path / "tokenizer.json"
    if not file.exists():
        raise InputError(f"{path}: has no tokenizer.json")
    try:
        vocabulary = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises no other
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: is no tokenizer: {reason}") from None
    config = _beside(path, "tokenizer_config.json")
    words = {name: word for name in SPECIAL if (word := _word(config.get(name))) is not None}
    template = _template(path, config)
    made = ChatTemplate(str(path), template, words) if template is not None else None
    return Tokenizer(str(path), vocabulary, frozenset(end_words(vocabulary) | _ends(path, vocabulary, words)), made)


def _ends(path: Path, vocabulary: tokenizers.Tokenizer, words: Mapping[str, str]) -> set[int]:
    """The end-of-text tokens that the folder's files name."""
    found: list[object] = [vocabulary.token_to_id(words["eos_token"])] if "eos_token" in words else []
    for name in ("generation_config.json", "config.json"):
        named = _beside(path, name).get("eos_token_id")
        found += named if isinstance(named, list) else [named]
    return {token for token in found if isinstance(token, int)}


def _template(path: Path, config: Mapping[str, object]) -> str | None:
    """The chat template, in a file of its own or in tokenizer_config.json, of several the one called default."""
    if (file := path / "chat_template.jinja").exists():
        return file.read_text(encoding="utf-8", errors="replace")
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}.get("default")
    return found if isinstance(found, str) else None


def _word(value: object) -> str | None:
    """A special token, written as a text or as a table with its ``content``."""
    word = value.get("content") if isinstance(value, dict) else value
    return word if isinstance(word, str) else None


def _beside(path: Path, name: str) -> dict[str, object]:
    """A JSON file that a folder may have."""
    return _json(path / name) if (path / name).exists() else {}


def _json(path: Path) -> dict[str, object]:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(made, dict):
        raise InputError(f"{path}: must be a table")
    return made
