"""Whatever byte of a model's header is wrong: it is read, or refused in one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.checkpoints.load import load_checkpoint
from node.errors import InputError
from tests.small_folder import write_folder
from tests.small_gguf import weights, write

CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "small.gguf", weights())


@pytest.fixture(scope="module")
def safetensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder"), weights()) / "model.safetensors"


def _opened(path: Path, model: Path, header: int, changes: list[tuple[float, int]]) -> None:
    content = path.read_bytes()
    damaged = bytearray(content)
    for share, byte in changes:
        damaged[int(share * header)] = byte
    path.write_bytes(damaged)
    try:
        checkpoint = load_checkpoint(model)
        for name in checkpoint.stored:
            assert checkpoint.tensor(name).shape == checkpoint.stored[name].shape
        if model == path:
            checkpoint.tokenizer.encode("the in 12 é")
    except InputError as refused:
        assert str(refused).startswith(str(model)) and "\n" not in str(refused)
    finally:
        path.write_bytes(content)


@settings(deadline=None)
@given(changes=CHANGES)
def test_gguf(gguf: Path, changes: list[tuple[float, int]]) -> None:
    begin = gguf.read_bytes().find(weights()["model.embed_tokens.weight"].tobytes()[:64])
    assert begin > 0
    _opened(gguf, gguf, begin, changes)


@settings(deadline=None)
@given(changes=CHANGES)
def test_safetensors(safetensors: Path, changes: list[tuple[float, int]]) -> None:
    header = 8 + int.from_bytes(safetensors.read_bytes()[:8], "little")
    _opened(safetensors, safetensors.parent, header, changes)
