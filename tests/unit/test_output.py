"""Is a result there as a whole or not at all, and is what was there before left alone?"""

from __future__ import annotations

import re
import stat
from datetime import datetime
from pathlib import Path

import pytest

from cluster.output import check_file, check_output, result_folder, write_json, write_text
from node.errors import InputError


def tree(folder: Path) -> dict[str, str]:
    """Every path below ``folder``, hidden ones too, with its content."""
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else "/" for p in sorted(folder.rglob("*"))}


class HalfPastTwelve:
    now = staticmethod(lambda: datetime(2024, 5, 1, 12, 30, 59))


# The folder


def test_a_result_appears_when_its_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result"
    with result_folder(str(target), "run") as folder:
        (folder.temporary / "a.txt").write_text("a")
        assert not target.exists() and folder.final is None
        assert folder.temporary.parent == target.parent  # so that the renaming stays on one file system
        assert folder.temporary.name.startswith(".")
    assert folder.final == target
    assert tree(tmp_path) == {"new": "/", "new/result": "/", "new/result/a.txt": "a"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [RuntimeError, InputError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), result_folder(str(tmp_path / "result"), "run") as folder:
        (folder.temporary / "inner").mkdir()
        (folder.temporary / "inner" / "a.txt").write_text("a")
        raise error("in the middle")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("theirs", [{}, {"result": "file"}, {"result": "/"}, {"result": "/", "result/b.txt": "b"}])
def test_what_comes_into_being_meanwhile_is_not_touched(tmp_path: Path, theirs: dict[str, str]) -> None:
    def serve() -> None:
        with result_folder(str(tmp_path / "result"), "run") as folder:
            (folder.temporary / "a.txt").write_text("mine")
            for name, text in theirs.items():
                (tmp_path / name).mkdir() if text == "/" else (tmp_path / name).write_text(text)

    if theirs:
        with pytest.raises(InputError, match="came into being while the command ran; nothing was written"):
            serve()
        assert tree(tmp_path) == theirs
    else:
        serve()
        assert tree(tmp_path) == {"result": "/", "result/a.txt": "mine"}


def test_a_parent_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "result", tmp_path / "file" / "deep" / "result", Path("/proc/none/result")):
        with pytest.raises(InputError, match="cannot be made: ") as caught, result_folder(str(target), "run"):
            pytest.fail("the block was entered")
        assert repr(str(target)) in str(caught.value)
    assert tree(tmp_path) == {"file": ""}


# Its name


@pytest.mark.parametrize("kind", ["folder", "file", "link to nowhere"])
def test_an_output_that_exists_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "result"
    {"folder": target.mkdir, "file": target.touch, "link to nowhere": lambda: target.symlink_to("nowhere")}[kind]()
    with pytest.raises(InputError, match="exists already; name a folder that does not, or remove it") as caught:
        check_output(str(target))
    assert repr(str(target)) in str(caught.value)
    check_output(str(tmp_path / "other"))
    check_output(None)
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_name_that_is_too_long_is_an_error_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be made: File name too long"), result_folder("x" * 300, "run"):
        pass
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["x" * 300, "file/result", ""])
def test_a_name_that_can_never_be_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(InputError):
        check_output(name)


def test_runs_begun_in_one_second_all_keep_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cluster.output.datetime", HalfPastTwelve)
    with result_folder(None, "run") as first, result_folder(None, "run") as second, result_folder(None, "compare"):
        (first.temporary / "a.txt").write_text("first")
        (second.temporary / "a.txt").write_text("second")
    names = ["20240501-123059-compare", "20240501-123059-run", "20240501-123059-run-1"]
    assert sorted(path.name for path in Path("runs").iterdir()) == names
    assert first.final is not None and (first.final / "a.txt").read_text() == "first"
    assert second.final is not None and (second.final / "a.txt").read_text() == "second"


def test_without_a_name_there_is_a_new_one_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with result_folder(None, "run") as folder:
        pass
    assert re.fullmatch(r"runs/\d{8}-\d{6}-run", str(folder.final))


# One file


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    write_text(path, "first\n")
    write_text(path, "second\n")
    assert tree(tmp_path) == {"page.md": "second\n"}


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.md"
    path.write_text("old")

    def full(self: Path, text: str, *_: object, **__: object) -> int:
        with self.open("w") as file:
            file.write(text[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"page\.md: cannot be written: No space left on device"):
        write_text(path, "new")
    assert tree(tmp_path) == {"page.md": "old"}


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").mkdir()
    for path in (tmp_path / "page.md", tmp_path / "none" / "page.md"):
        with pytest.raises(InputError, match="cannot be written"):
            write_text(path, "new")
        with pytest.raises(InputError, match="cannot be written"):  # and it is known before
            check_file(path)
    check_file(tmp_path / "new.md")
    assert tree(tmp_path) == {"page.md": "/"}


def test_json_has_no_nan_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": None})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": null\n}\n'
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert list(tree(tmp_path)) == ["a.json"]
