"""Is the compiled engine used where it should be, and nowhere else, and is the user told?"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from node import native
from node.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled modules are looked for; nobody asks for an engine."""
    monkeypatch.setattr(native, "FOLDER", tmp_path / "native")
    monkeypatch.delenv(native.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [one for one in sys.meta_path if not isinstance(one, native._Finder)])
    native._found.cache_clear()
    yield tmp_path / "native"
    native._found.cache_clear()


def compiled(folder: Path, note: str) -> None:
    folder.mkdir()
    (folder / native.NOTE).write_text(note)


def test_nothing_that_is_compiled_is_missed_by_nobody(folder: Path) -> None:
    native.install()
    assert (native.engine(), native.check()) == ("python", "")


@pytest.mark.parametrize("asked", [None, "", "native"])
def test_what_is_of_these_sources_is_used(asked: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if asked is not None:
        monkeypatch.setenv(native.VARIABLE, asked)
    compiled(folder, native.made_of())
    native.install()
    assert (native.engine(), native.check()) == ("native", "")
    found = sys.meta_path[0].find_spec("node.hardware.host", None, None)
    assert isinstance(found, ModuleSpec)
    assert found.origin == str(folder / "node" / "hardware" / "host") + native.SUFFIX
    for other in ("node.units", "node.hardware", "numpy"):
        assert sys.meta_path[0].find_spec(other, None, None) is None


def test_unless_the_other_engine_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "python")
    compiled(folder, native.made_of())
    native.install()
    assert (native.engine(), native.check()) == ("python", "")


@pytest.mark.parametrize("asked", [None, "python"])
def test_what_is_of_other_sources_is_left_alone(
    asked: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv(native.VARIABLE, asked)
    compiled(folder, "others")
    native.install()
    assert native.engine() == "python"
    assert native.check() == (
        "" if asked else f"{folder} is of other sources or another Python, so the engine is interpreted; "
        "make native compiles it anew"
    )  # fmt: skip


@pytest.mark.parametrize("note", ["others", None])
def test_one_that_is_asked_for_must_be_there(note: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "native")
    if note:
        compiled(folder, note)
    native.install()
    assert native.engine() == "python"
    why = "is of other sources or another Python" if note else "does not exist"
    with pytest.raises(InputError, match=f"'native' in the environment: {folder} {why}; make native"):
        native.check()


def test_one_that_is_unknown_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "cython")
    with pytest.raises(InputError, match=r"^COE_ENGINE = 'cython' in the environment; allowed: python, native, or"):
        native.check()


def test_any_source_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.py").write_text("x = 1\n")
    first = native.made_of()
    (tmp_path / "notes.md").write_text("x")
    assert native.made_of() == first
    (tmp_path / "deeper" / "one.py").write_text("x = 2\n")
    changed = native.made_of()
    (tmp_path / "deeper" / "one.py").rename(tmp_path / "one.py")
    moved = native.made_of()
    monkeypatch.setattr(native, "SUFFIX", ".cpython-399.so")
    assert len({first, changed, moved, native.made_of()}) == 4


def test_all_that_is_compiled_is_there() -> None:
    for module in native.MODULES:
        assert (native.SOURCES.parent / f"{module.replace('.', '/')}.py").exists(), module
