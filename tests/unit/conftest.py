"""What unit tests share: configs of settings, and what is said of a wrong one; traces from text; ``coe`` as called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.config import Config
from cluster.config_file import read_config
from cluster.traces import Trace, read_trace
from node.errors import InputError


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """``toml(content)``: the path of a config file."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "settings.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="session")
def given() -> Callable[..., Config]:
    """``given((key, value), ..., path)``: the config of a file with settings on top."""

    def read(*settings: tuple[str, object], path: Path | None = None) -> Config:
        return read_config(path, settings)

    return read


@pytest.fixture(scope="session")
def fault() -> Callable[..., str]:
    """``fault((key, value), ..., path)``: what is said, in one line, of a config that is wrong."""

    def say(*settings: tuple[str, object], path: Path | None = None) -> str:
        with pytest.raises(InputError) as caught:
            read_config(path, settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return say


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Trace]:
    """``read(content, limit)``: a trace file of this content."""

    def write_and_read(content: str | bytes, limit: int | None = None) -> Trace:
        path = tmp_path / "trace"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_trace(path, limit)

    return write_and_read
