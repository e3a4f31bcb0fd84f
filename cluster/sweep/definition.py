"""What a sweep runs: a config file with a table ``[grid]``, of which each combination of values is a point."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from cluster import __version__
from cluster.config import Config
from cluster.config_file import config_of_values, flat
from node.errors import InputError
from node.models.served import load_model
from node.spec_file import load_machine, read_toml

MOST_POINTS = 100_000
Point = dict[str, object]  # grid key -> its value


@dataclass(frozen=True)
class Sweep:
    """``base``: key -> (value, where it was set); ``grid``: key -> its values, both of the file at ``path``."""

    path: Path
    base: Mapping[str, tuple[object, str]]
    grid: Mapping[str, Sequence[object]]

    def points(self) -> list[Point]:
        """All combinations; the last key of the grid changes quickest."""
        return points_of(self.grid)

    def config(self, point: Point) -> Config:
        """The config of a point; ``InputError`` where it is none."""
        values = {**self.base, **{key: (value, str(self.path)) for key, value in point.items()}}
        return config_of_values(values, lambda key: not key.startswith("footprint."))

    def with_options(self, options: Mapping[str, object]) -> Sweep:
        """With keys of ``[cluster]`` from options, named by their key; None: not given."""
        given = {key: (value, f"--{key.split('.')[1]}") for key, value in options.items() if value is not None}
        return replace(self, base={**self.base, **given})


def points_of(grid: Mapping[str, Sequence[object]]) -> list[Point]:
    """All combinations of a grid's values; the last key changes quickest."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def read_sweep(path: Path) -> Sweep:
    """The sweep of a file; ``InputError`` where the file or its grid is not right."""
    tree = read_toml(path)
    grid = tree.pop("grid", None)
    base = {key: (value, str(path)) for key, value in flat(tree)}
    found = grid_of(path, "grid", grid, base)
    count = math.prod(map(len, found.values()))
    if count > MOST_POINTS:
        raise InputError(f"{path}: the grid has {count:,} points: must be at most {MOST_POINTS:,}")
    return Sweep(path, base, found)


def grid_of(path: Path, table: str, grid: object, base: Container[str]) -> dict[str, Sequence[object]]:
    """By key, the values of a table of lists, whose keys must not be in ``base``; ``InputError`` where it is none."""
    if not isinstance(grid, dict) or not grid:
        raise InputError(f'{path}: has no table [{table}] of lists, for example "runtime.eviction" = ["lru", "lfu"]')
    found = {key: _values(path, f"{table}.{key}", value) for key, value in flat(grid)}
    for key in found:
        if key.startswith("cluster."):
            raise InputError(f"{path}: {table}.{key}: nothing in [cluster] changes a result; set it outside [{table}]")
        if key in base:
            raise InputError(f"{path}: {key}: is in [{table}] and outside; remove one of the two")
    return found


def _values(path: Path, name: str, value: object) -> Sequence[object]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{path}: {name} = {value!r}: must be a list of values, for example [2, 4, 8]")
    twice = [one for index, one in enumerate(value) if one in value[:index]]
    if twice:
        raise InputError(f"{path}: {name}: has {twice[0]!r} twice")
    return value


def configs(sweep: Sweep, points: Iterable[Point]) -> list[Config | InputError]:
    """Of each point its config, or why it has none; ``InputError`` where no point has one."""
    found = [_config_or_error(sweep, point) for point in points]
    if all(isinstance(one, InputError) for one in found):
        assert isinstance(found[0], InputError)
        raise found[0]
    return found


def _config_or_error(sweep: Sweep, point: Point) -> Config | InputError:
    try:
        return sweep.config(point)
    except InputError as error:
        return error


def record(sweep: Sweep, found: Iterable[Config | InputError]) -> dict[str, object]:
    """What results depend on: settings, grid, version, and a hash of every machine, model and trace that is read.

    Equal records mean equal results; where the emulator itself runs is no part of it.
    """
    valid = [config for config in found if isinstance(config, Config)]
    names = {("machine", config.machine.name) for config in valid}
    names |= {("model", model) for config in valid for model, _ in config.experts.catalogue().kinds()}
    names |= {("trace", config.workload.trace) for config in valid if config.workload.trace is not None}
    inputs: dict[str, str] = {}
    for kind, name in sorted(names):
        key = f"{kind} {Path(name).name}"  # whatever folder the command is given in
        inputs[key] = inputs.get(key, "") + _hash(kind, name)
    return {
        "version": __version__,
        "base": {key: value for key, (value, _) in sweep.base.items() if not key.startswith("cluster.")},
        "grid": [[key, values] for key, values in sweep.grid.items()],  # their order numbers the points
        "inputs": inputs,
    }


def _hash(kind: str, name: str) -> str:
    """Of what is read, not of the file: a machine may have bases in other files. An error counts as what it says."""
    try:
        if kind == "machine":
            machine = load_machine(name)
            content = repr((machine, machine.figures)).encode()
        else:
            content = Path(name).read_bytes() if kind == "trace" else repr(load_model(name)).encode()
    except (InputError, OSError) as error:
        content = str(error).encode()
    return hashlib.sha256(content).hexdigest()
