"""A Composition of Experts on disk: what a file says, what a folder says, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.checkpoints.catalogue import NamedExpert, read_catalogue
from node.errors import InputError

FILE = """
[[expert]]
name = "code"
path = "models/code.gguf"
description = "programs"
examples = ["Write a function that", "Why does this not compile?"]

[[expert]]
name = "talk"
path = "talk"
general = true
"""


@pytest.fixture
def experts(tmp_path: Path) -> Path:
    """A folder of two checkpoints and things that are none."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "code.gguf").touch()
    (tmp_path / "models" / "notes.txt").touch()
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "config.json").touch()
    return tmp_path


def test_a_file(experts: Path) -> None:
    path = experts / "coe.toml"
    path.write_text(FILE)
    found = read_catalogue(path)
    examples = ("Write a function that", "Why does this not compile?")
    assert found.experts == (
        NamedExpert("code", experts / "models" / "code.gguf", "programs", examples),
        NamedExpert("talk", experts / "talk", general=True),
    )
    assert found.general == found.experts[1]


def test_a_folder_with_its_file(experts: Path) -> None:
    (experts / "experts.toml").write_text(FILE)
    assert [expert.name for expert in read_catalogue(experts).experts] == ["code", "talk"]


def test_a_folder_of_checkpoints(experts: Path) -> None:
    (experts / "law.gguf").touch()
    (experts / "empty").mkdir()
    found = read_catalogue(experts)
    assert [(expert.name, expert.path) for expert in found.experts] == [
        ("law", experts / "law.gguf"),
        ("talk", experts / "talk"),
    ]
    assert found.general is None
    (experts / "general.gguf").touch()
    general = read_catalogue(experts).general
    assert general is not None and general.name == "general"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = ", "cannot be read as TOML"),
        ("", "needs one [[expert]] or more"),
        ("expert = 3", "needs one [[expert]] or more"),
        ("experts = 3", "experts: unknown key; a catalogue has [[expert]]"),
        ("[[expert]]\npath = 'talk'", "expert 1: name: is missing"),
        ("[[expert]]\nname = ''\npath = 'talk'", "expert 1: name: is missing"),
        ("[[expert]]\nname = 'a'", "expert 1: path: is missing"),
        ("[[expert]]\nname = 'a'\nweights = 'talk'", "expert 1: weights: unknown key; an expert has name, path"),
        ("[[expert]]\nname = 3\npath = 'talk'", "expert 1: name = 3: must be a str"),
        ("[[expert]]\nname = 'a'\npath = 'talk'\ngeneral = 1", "expert 1: general = 1: must be a bool"),
        ("[[expert]]\nname = 'a'\npath = 'talk'\nexamples = 'b'", "expert 1: examples = 'b': must be a list"),
        ("[[expert]]\nname = 'a'\npath = 'talk'\nexamples = ['b', 1]", "expert 1: examples: 1: must be a prompt"),
        ("[[expert]]\nname = 'a'\npath = 'none.gguf'", "expert 1: path = 'none.gguf': must be a .gguf file or"),
        ("[[expert]]\nname = 'a'\npath = 'models'", "expert 1: path = 'models': must be a .gguf file or a folder"),
        (f"{FILE}[[expert]]\nname = 'code'\npath = 'talk'", "name = 'code': is there twice"),
        (f"{FILE}[[expert]]\nname = 'a'\npath = 'talk'\ngeneral = true", "general: is true of talk and a"),
    ],
)
def test_one_line_for_what_is_wrong(experts: Path, text: str, expected: str) -> None:
    path = experts / "coe.toml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_catalogue(path)
    assert str(refused.value).startswith(str(path)) and expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no experts: no \.gguf file, no folder with a config\.json"):
        read_catalogue(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        read_catalogue(tmp_path / "none.toml")
