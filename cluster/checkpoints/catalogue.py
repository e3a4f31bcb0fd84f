"""A Composition of Experts on disk: named checkpoints, and what a router is told of each.

A TOML file of ``[[expert]]`` tables: ``name``, ``path`` (relative to the file), ``description``, ``examples`` (prompts
that are for this expert), and ``general = true`` for the one that takes what is for nobody else. A folder without a
TOML: each .gguf file and each folder with a config.json in it is an expert of its name, ``general`` the general one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.errors import InputError
from node.spec_file import read_toml

KEYS = {"name": str, "path": str, "description": str, "examples": list, "general": bool}
NEEDED = ("name", "path")
GENERAL = "general"


@dataclass(frozen=True, slots=True)
class NamedExpert:
    """An expert: ``path`` is that of its checkpoint; ``examples`` are prompts for it."""

    name: str
    path: Path
    description: str = ""
    examples: tuple[str, ...] = ()
    general: bool = False


@dataclass(frozen=True, slots=True)
class Composition:
    """Experts in the order of their file, or by name."""

    experts: tuple[NamedExpert, ...]

    @property
    def general(self) -> NamedExpert | None:
        """The expert for whatever is for no other, if one is."""
        return next((expert for expert in self.experts if expert.general), None)


def read_catalogue(path: Path) -> Composition:
    """The experts of a TOML file or of a folder, which may hold an ``experts.toml``; raises ``InputError``."""
    if path.is_dir():
        file = path / "experts.toml"
        return _of_toml(file) if file.exists() else _of_folder(path)
    return _of_toml(path)


def _of_folder(path: Path) -> Composition:
    found = [entry for entry in sorted(path.iterdir()) if is_checkpoint(entry)]
    if not found:
        raise InputError(f"{path}: has no experts: no .gguf file, no folder with a config.json, no experts.toml")
    named = [(entry.name if entry.is_dir() else entry.stem, entry) for entry in found]
    return _composed([NamedExpert(name, entry, general=name == GENERAL) for name, entry in named], path)


def is_checkpoint(path: Path) -> bool:
    """Whether there is something at ``path`` that looks like a checkpoint."""
    return (path / "config.json").is_file() if path.is_dir() else path.suffix == ".gguf" and path.is_file()


def _of_toml(path: Path) -> Composition:
    tree = read_toml(path)
    if unknown := [key for key in tree if key != "expert"]:
        raise InputError(f"{path}: {unknown[0]}: unknown key; a catalogue has [[expert]]")
    tables = tree.get("expert")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: needs one [[expert]] or more")
    return _composed([_expert(table, number, path) for number, table in enumerate(tables, 1)], path)


def _expert(table: Mapping[str, object], number: int, path: Path) -> NamedExpert:
    where = f"{path}: expert {number}"
    for key, value in table.items():
        if key not in KEYS:
            raise InputError(f"{where}: {key}: unknown key; an expert has {', '.join(KEYS)}")
        if type(value) is not KEYS[key]:
            raise InputError(f"{where}: {key} = {value!r}: must be a {KEYS[key].__name__}")
    for key in NEEDED:
        if not table.get(key):
            raise InputError(f"{where}: {key}: is missing")
    examples = table.get("examples", [])
    assert isinstance(examples, list)
    if wrong := [example for example in examples if not isinstance(example, str) or not example.strip()]:
        raise InputError(f"{where}: examples: {wrong[0]!r}: must be a prompt")
    checkpoint = path.parent / str(table["path"])
    if not is_checkpoint(checkpoint):
        raise InputError(f"{where}: path = {table['path']!r}: must be a .gguf file or a folder with a config.json")
    described = str(table.get("description", ""))
    return NamedExpert(str(table["name"]), checkpoint, described, tuple(examples), bool(table.get("general")))


def _composed(experts: list[NamedExpert], path: Path) -> Composition:
    names = [expert.name for expert in experts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: name = {twice[0]!r}: is there twice; experts need names of their own")
    if len(general := [expert.name for expert in experts if expert.general]) > 1:
        raise InputError(f"{path}: general: is true of {' and '.join(general)}; one expert can be the general one")
    return Composition(tuple(experts))
