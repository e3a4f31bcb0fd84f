"""Vocabularies of the kind of Llama 2's: does a BPE whose merges are found from its scores make the same tokens?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.checkpoints.gguf_tokenizer import gguf_tokenizer
from cluster.checkpoints.tokenizer import Tokenizer
from tests.differential.conftest import ROOT, run_reference

CORPUS = [line for name in ("README.md", "docs/design.md") for line in (ROOT / name).read_text().splitlines() if line]
VARIED = [entry["text"] for entry in json.loads(Path(__file__).with_name("smollm2_tokens.json").read_text())]
TEXTS = [text for text in [*VARIED, *CORPUS] if not any(sign in text for sign in ("\x00", "▁", "<|"))]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """What the sentencepiece package learns from ``CORPUS`` and makes of ``TEXTS``."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "asked.json").write_text(json.dumps({"corpus": CORPUS, "texts": TEXTS}))
    run_reference("sentencepiece_bpe.py", folder)
    return dict(json.loads((folder / "answers.json").read_text()))


@pytest.fixture(scope="module")
def tokenizer(known: dict[str, list[object]]) -> Tokenizer:
    entries: dict[str, object] = {name: known[name] for name in ("tokens", "scores", "token_type")}
    entries |= {"model": "llama", "unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return gguf_tokenizer({f"tokenizer.ggml.{name}": value for name, value in entries.items()}, Path("m.gguf"))


def test_tokens(known: dict[str, list[object]], tokenizer: Tokenizer) -> None:
    assert len(TEXTS) > 200
    for text, ids in zip(TEXTS, known["ids"], strict=True):
        assert tokenizer.encode(text) == ids, text


def test_texts(known: dict[str, list[list[int]]], tokenizer: Tokenizer) -> None:
    for text, ids, decoded in zip(TEXTS, known["ids"], known["decoded"], strict=True):
        assert tokenizer.decode(ids) == decoded == text
