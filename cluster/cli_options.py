"""What the commands share: options, the config they make, the two consoles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console

from cluster.config import COMPARED as MACHINES
from cluster.config import Config
from cluster.config_file import parse_setting, read_config
from cluster.output import shown
from node.dataflow.fusion import LEVELS
from node.errors import InputError
from node.spec import Machine
from node.spec_file import MOST_SOCKETS, load_machine

F = TypeVar("F", bound=Callable[..., object])
D = TypeVar("D")
OUT, ERR = (
    Console(stderr=stderr, width=None if sys.stdout.isatty() else 120, markup=False) for stderr in (False, True)
)
COMPARED = ",".join(MACHINES)


def options_together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options that go together, in this order."""

    def apply(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


machine_options = click.option(
    "--set", "settings", multiple=True, metavar="machine.PATH=VALUE", help="Set one number; may be repeated."
)
config_options = options_together(
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="A TOML file of settings."),
    click.option("--set", "settings", multiple=True, metavar="TABLE.KEY=VALUE", help="Set one key; may be repeated."),
)
workload_options = options_together(
    click.option("--trace", help="A request trace: Azure or BurstGPT CSV, Mooncake or own JSONL."),
    click.option("--limit", type=int, help="Use only so many requests."),
    click.option("--rate-scale", type=float, help="Divide arrival times by this."),
    click.option("--seed", type=int, help="Seed of everything that is drawn."),
)
backend_options = options_together(
    click.option("--backend", help="ray or local."),
    click.option(
        "--address",
        help="Ray cluster to join.  [default: RAY_ADDRESS, which a job has; else a new one on this machine]",
    ),
)
model_options = options_together(
    click.option(
        "--machine", "name", default="sn40l-node", show_default=True, help="A built-in machine or .toml file."
    ),
    click.option("--sockets", type=click.IntRange(1, MOST_SOCKETS), help="Sockets to use.  [default: all]"),
    click.option(
        "--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences, or images, at once."
    ),
    click.option("--fusion", type=click.Choice(LEVELS), default="fused", show_default=True),
    click.option("--orchestration", type=click.Choice(["ho", "so"]), default="ho", show_default=True),
)
_KEYS = {
    "trace": "workload.trace",
    "limit": "workload.limit",
    "rate_scale": "workload.rate_scale",
    "seed": "seed",
    "backend": "cluster.backend",
    "address": "cluster.address",
    "machine": "machine.name",
    "experts": "experts.count",
}


def config_of(
    config_file: Path | None,
    settings: Sequence[str],
    options: dict[str, object],
    used: Callable[[str], bool],
    base: Config | None = None,
) -> Config:
    """The config of a file, ``--set`` and options, over ``base``; ``used`` says which keys the command reads."""
    return read_config(config_file, [parse_setting(text) for text in settings], used, named(options), base)


def taken(kind: Callable[..., D], options: dict[str, object]) -> D:
    """A dataclass of the options that are its fields, which are no more among the others."""
    return kind(**{field.name: options.pop(field.name) for field in fields(kind)})  # type: ignore[arg-type]


def tell_written(path: Path | None) -> None:
    """Where results are, on one line: ``coe fetch`` reads it."""
    assert path is not None
    OUT.print(f"\nwritten to {shown(path)}", soft_wrap=True, highlight=False)


def named(options: Mapping[str, object]) -> list[tuple[str, object, str]]:
    """Of the options that are given: key, value, and how the option is written."""
    given = {name: value for name, value in options.items() if value is not None}
    return [(_KEYS[name], value, f"--{name.replace('_', '-')}") for name, value in given.items()]


def machine_list(text: str) -> list[str]:
    """The machines of ``--machines``; ``InputError`` for none or the same twice."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise InputError(f"--machines {text!r}: must be different machines, with commas, for example {COMPARED}")
    return names


def machine_number(key: str) -> bool:
    """Whether a key sets a number of the machine."""
    return key.startswith("machine.") and key != "machine.name"


@dataclass(frozen=True)
class Model:
    """What ``model_options`` give."""

    name: str
    sockets: int | None
    batch: int
    fusion: str
    orchestration: str

    def machine(self, settings: Sequence[str]) -> Machine:
        """The machine, with ``--set`` numbers and ``--sockets`` of it."""
        found = load_machine(self.name, config_of(None, settings, {}, machine_number).machine.numbers)
        return found if self.sockets is None else replace(found, sockets=self.sockets)
