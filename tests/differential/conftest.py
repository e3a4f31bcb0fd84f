"""What differential tests share: an honest run; what small models of the transformers library answer."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cluster.backends import LocalBackend
from node.events import Ints
from tests.differential.tampering import Tampered, serve

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-reference" / "bin" / "python"
TINY = {"vocab_size": 60, "num_hidden_layers": 2, "hidden_size": 36, "num_attention_heads": 9}
LLAMA = {
    "model_type": "llama",
    **TINY,
    "num_key_value_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 64,
}
ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FALCON = {"model_type": "falcon", **TINY, "bias": False, "parallel_attn": True, "alibi": False}
CONFIGS = {
    "llama": LLAMA,
    "llama-3.1": LLAMA
    | {"tie_word_embeddings": True, "rope_parameters": ROPE | {"original_max_position_embeddings": 16}},
    "mistral": LLAMA | {"model_type": "mistral", "sliding_window": 6, "head_dim": 8},
    "falcon-40b": FALCON | {"num_kv_heads": 3, "new_decoder_architecture": True, "ffn_hidden_size": 144},
    "falcon-7b": FALCON | {"multi_query": True, "new_decoder_architecture": False},
    "bloom": {"model_type": "bloom", "vocab_size": 60, "n_layer": 2, "hidden_size": 36, "n_head": 9},
    "gpt": {"model_type": "gpt2", "vocab_size": 60, "n_layer": 2, "n_embd": 36, "n_head": 9, "n_positions": 64}
    | {"activation_function": "gelu_new", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
}


def run_reference(script: str, folder: Path) -> Path:
    """What a script of tests/reference makes in ``folder``."""
    python = Path(os.environ.get("REFERENCE_PYTHON", PYTHON))
    if not python.exists():
        pytest.skip(f"no {python}: make test-deps installs PyTorch and transformers there")
    made = subprocess.run(
        [python, ROOT / "tests" / "reference" / script, folder], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per model of ``CONFIGS``: config.json, weights, answers, gradients."""
    folder = tmp_path_factory.mktemp("models")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    return run_reference("transformers_logits.py", folder)


@pytest.fixture(scope="session")
def llava_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and answers of a LLaVA."""
    return run_reference("transformers_llava.py", tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def windows() -> list[Ints]:
    """The windows of commands of an honest run."""
    seen: list[Ints] = []

    def see(_window: int, columns: Ints) -> Ints:
        seen.append(columns)
        return columns

    assert serve(Tampered(stream=see)).summary == serve(LocalBackend()).summary
    assert len(seen) >= 4
    return seen
