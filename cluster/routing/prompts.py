"""Labelled prompts from a TOML file: per expert what a router is fitted to, and what it is then measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.routing.router import folded
from node.errors import InputError
from node.spec_file import read_toml

OWN = Path(__file__).with_name("prompts.toml")
PARTS = ("train", "held_out")


@dataclass(frozen=True)
class Prompts:
    """``train`` and ``held_out`` by expert, every expert in both; ``general`` is who answers what nobody is for."""

    general: str | None
    train: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]


def load_prompts(path: Path = OWN) -> Prompts:
    """The prompts of a file; ``InputError`` naming file and key for what is missing, unknown, misshapen or in both."""
    tree = read_toml(path)
    _known(tree, ("general", "experts"), str(path))
    general, experts = tree.get("general"), tree.get("experts")
    if not isinstance(experts, dict) or not experts:
        raise InputError(f"{path}: experts: needs a table [experts.NAME] with train for each expert")
    if general is not None and not (isinstance(general, str) and general in experts):
        raise InputError(f"{path}: general = {general!r}: no such expert; there are {', '.join(experts)}")
    parts: dict[str, dict[str, tuple[str, ...]]] = {part: {} for part in PARTS}
    for name, table in experts.items():
        where = f"{path}: experts.{name}"
        if not isinstance(table, dict):
            raise InputError(f"{where} = {table!r}: must be a table with train, and held_out if wanted")
        _known(table, PARTS, where)
        for part in PARTS:
            parts[part][name] = _strings(table.get(part, []), f"{where}.{part}")
        if not parts["train"][name] and name != general:
            raise InputError(f"{where}.train: needs a prompt; only the general expert may be without")
    _apart(parts["train"], parts["held_out"], path)
    return Prompts(general, parts["train"], parts["held_out"])


def _known(table: Mapping[str, object], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise InputError(f"{where}: {key}: unknown key; there are {', '.join(keys)}")


def _strings(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where} = {value!r}: must be a list of prompts")
    for number, prompt in enumerate(value, 1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f"{where}, prompt {number} = {prompt!r}: must be a text that is not empty")
    return tuple(value)


def _apart(train: Mapping[str, tuple[str, ...]], held_out: Mapping[str, tuple[str, ...]], path: Path) -> None:
    """No prompt is both: one that was learned measures nothing."""
    learned = {folded(prompt): name for name, prompts in train.items() for prompt in prompts}
    for name, prompts in held_out.items():
        for number, prompt in enumerate(prompts, 1):
            if folded(prompt) in learned:
                other = learned[folded(prompt)]
                raise InputError(f"{path}: experts.{name}.held_out, prompt {number}: is in experts.{other}.train too")
