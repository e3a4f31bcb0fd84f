"""Is other code found out, and the same code elsewhere not?"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.resuming import made_with
from cluster.resuming.made_with import check_made_with
from node.errors import InputError


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources of two packages, which count as ours."""
    for name in ("cluster", "node"):
        folder = tmp_path / name / "specs"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("")
        (folder / "a.toml").write_text("x = 1\n")
        package = SimpleNamespace(__name__=name, __file__=str(folder.parent / "__init__.py"))
        monkeypatch.setattr(made_with, name, package)
    return tmp_path


def checked(found: dict[str, str]) -> None:
    check_made_with(found, "here")


@pytest.mark.parametrize("change", ["content", "name", "another", "none", "moved"])
def test_whatever_changes_in_the_code_is_found_out(change: str, code: Path) -> None:
    found, spec = made_with.made_with(), code / "node" / "specs" / "a.toml"
    checked(found)
    if change == "content":
        spec.write_text("x = 2\n")
    elif change == "name":
        spec.rename(spec.with_name("b.toml"))
    elif change == "another":
        (code / "cluster" / "new.py").write_text("")
    elif change == "none":
        spec.unlink()
    else:
        shutil.move(spec, code / "node" / "a.toml")
    with pytest.raises(InputError, match=r"^here: other code made it \([0-9a-f]{12}, here [0-9a-f]{12}\)"):
        checked(found)


def test_what_is_no_code_does_not_matter(code: Path) -> None:
    found = made_with.made_with()
    (code / "node" / "__pycache__").mkdir()
    (code / "node" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    (code / "cluster" / "notes.md").write_text("x")
    checked(found)


@pytest.mark.parametrize("name", ["python", *made_with.PACKAGES])
def test_another_version_is_found_out(name: str) -> None:
    with pytest.raises(InputError, match=f"^here: made with {name} 0.1, here is "):
        checked({**made_with.made_with(), name: "0.1"})
    without = {key: value for key, value in made_with.made_with().items() if key != name}
    with pytest.raises(InputError, match=f"^here: made with {name} unknown, here is "):
        checked(without)
