"""The config from one TOML file and ``--set``; every key is checked, and one that nothing reads is an error."""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

from cluster.config import TABLES, Config
from cluster.config_values import check
from node.errors import InputError
from node.spec_file import read_figure, read_toml

Rule = tuple[Callable[[Config], bool], str]
# key -> how a value ends that is the path of a file
_PATHS: dict[str, tuple[str, ...]] = {
    "workload.trace": ("",),
    "machine.name": (".toml",),
    **dict.fromkeys(("experts.model", "experts.router", "experts.group.model"), (".toml", ".json")),
}


def _at_once(config: Config) -> bool:
    return config.workload.trace is None and config.workload.arrivals == "at_once"


# key -> rules (when it has no effect, what to say): a key that is set and has no effect is an error
_UNUSED: dict[str, tuple[Rule, ...]] = {
    **{
        f"workload.{key}": ((lambda c: c.workload.trace is not None, "workload.trace is set"),)
        for key in ("requests", "arrivals", "input_tokens", "output_tokens")
    },
    "workload.rate": (
        (lambda c: c.workload.trace is not None, "workload.trace is set"),
        (_at_once, "workload.arrivals is at_once"),
    ),
    "workload.rate_scale": ((_at_once, "workload.arrivals is at_once"),),
    "workload.zipf_s": ((lambda c: c.workload.popularity != "zipf", "workload.popularity is not zipf"),),
    **{
        f"experts.{key}": ((lambda c: bool(c.experts.group), "experts.group is set"),)
        for key in ("count", "model", "dtype")
    },
    "sharding.router": ((lambda c: c.experts.router == "none", "experts.router is none"),),
    "experts.router_tokens": ((lambda c: c.experts.router == "none", "experts.router is none"),),
    **{
        f"sharding.{key}": ((lambda c: c.sharding.home == "all_groups", "sharding.home is all_groups"),)
        for key in ("placement", "replicas", "rebalance")
    },
    "runtime.fairness": (
        (
            lambda c: (
                c.runtime.scheduler == "paper" and not (c.runtime.drain or any(one.priority for one in c.slo.classes))
            ),
            "runtime.scheduler is paper and no class has a priority",
        ),
    ),
    "runtime.orchestration": (
        (lambda c: c.runtime.fusion not in ("fused", "looped"), "runtime.fusion is not fused or looped"),
    ),
    "runtime.program_reserve": ((lambda c: c.runtime.switching != "program", "runtime.switching is not program"),),
    "cluster.sockets_per_actor": (
        (lambda c: c.routing.nodes > 1, "routing.nodes is above 1, and a node's sockets are in one process"),
    ),
    "cluster.node_workers": ((lambda c: c.cluster.backend != "ray", "cluster.backend is not ray"),),
    "cluster.address": ((lambda c: c.cluster.backend != "ray", "cluster.backend is not ray"),),
}


def read_config(
    path: Path | None,
    settings: Iterable[tuple[str, object]],
    used: Callable[[str], bool] = lambda _key: True,
    options: Iterable[tuple[str, object, str]] = (),
    base: Config | None = None,
) -> Config:
    """The config of a file (None: defaults) with ``settings`` (key, value) on top, then ``options`` (and their names).

    All of it is on top of ``base``, where that is given.
    ``used`` says which keys the command reads. Relative paths in the file are taken from its folder. Raises
    ``InputError`` naming key, value, what is allowed and where.
    """
    values = values_of({} if path is None else read_toml(path), str(path), settings, options)
    return config_of_values(values, used, base)


def values_of(
    tree: Mapping[str, object],
    where: str,
    settings: Iterable[tuple[str, object]],
    options: Iterable[tuple[str, object, str]] = (),
) -> dict[str, tuple[object, str]]:
    """By key, values with where they were set: the file ``where``, which has ``tree``, then settings, then options."""
    for table in tree:
        _known_table(table, where)
    values = {key: (value, where) for key, value in flat(tree)}
    values |= {key: (value, "--set") for key, value in settings}
    return values | {key: (value, option) for key, value, option in options}


def config_of_values(
    values: Mapping[str, tuple[object, str]],
    used: Callable[[str], bool] = lambda _key: True,
    base: Config | None = None,
) -> Config:
    """The config of values by key, each with where it was set: a file's path or an option; raises ``InputError``."""
    base = base or Config()
    config = replace(base, explicit={**base.explicit, **{key: where for key, (_, where) in values.items()}})
    with config.naming_origins():
        for key, (value, where) in values.items():
            config = _with(config, key, value, where)
        for key, (_, where) in values.items():
            _check_used(config, key, where, used)
        check(config)
    return config


def parse_setting(text: str) -> tuple[str, object]:
    """``table.key=value`` of ``--set``: the value as in TOML, or else as plain text."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value:
        raise InputError(f"--set {text!r}: must be table.key=value, for example --set runtime.batch=4")
    try:
        found = tomllib.loads(f"value = {value}")
    except ValueError:  # no TOML, or a number with more digits than Python reads
        return key, value
    if len(found) > 1:
        raise InputError(f"--set {text!r}: must be one setting; give --set once more for another")
    return key, found["value"]


def flat(tree: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """The keys of a TOML file with their tables before them, and the values; a number's value and kind are one."""
    for key, value in tree.items():
        if isinstance(value, dict) and "value" not in value and (value or not prefix):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _with(config: Config, key: str, value: object, where: str) -> Config:
    table, _, name = key.partition(".")
    if key == "seed":
        return replace(config, seed=int(str(_typed(value, int, "seed", where))))
    _known_table(table if name else "", where, key)
    part = getattr(config, table)
    if table == "machine" and name != "name":
        figure = read_figure(name, value, where, f"{where}: {key}")
        number: dict[str, object] = {"value": figure.value, "kind": figure.kind, "source": figure.source}
        number |= {"range": figure.range} if figure.range is not None else {}
        return replace(config, machine=replace(config.machine, numbers={**config.machine.numbers, name: number}))
    kinds = get_type_hints(type(part))
    if name not in kinds:
        raise InputError(f"{where}: {key}: unknown key; [{table}] has {', '.join(kinds)}")
    typed = _tables(value, key, where) if key in TABLES else _typed(value, kinds[name], key, where)
    return replace(config, **{table: replace(part, **{name: typed})})


def _known_table(table: str, where: str, key: str | None = None) -> None:
    tables = [entry.name for entry in fields(Config) if entry.name not in ("seed", "explicit")]
    if table not in tables and (key is not None or table != "seed"):
        found = table if key is None else key
        raise InputError(f"{where}: {found}: unknown key; there are seed and the tables {', '.join(tables)}")


def _typed(value: object, kind: object, key: str, where: str) -> object:
    allowed = get_args(kind) if isinstance(kind, UnionType) else (get_origin(kind) or kind,)
    if allowed == (tuple,):
        if not isinstance(value, list):
            raise InputError(f"{where}: {key} = {value!r}: must be of type list")
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    fits = any(isinstance(value, one) for one in allowed if isinstance(one, type))
    if not fits or isinstance(value, bool) != (bool in allowed):
        names = " or ".join(one.__name__ for one in allowed if isinstance(one, type) and one is not type(None))
        raise InputError(f"{where}: {key} = {value!r}: must be of type {names}")
    if isinstance(value, str) and not where.startswith("--") and value.endswith(_PATHS.get(key, ())):
        return str(Path(where).parent / value)
    return value


def _tables(value: object, table: str, where: str) -> tuple[object, ...]:
    kinds = get_type_hints(TABLES[table])
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{where}: {table} = {value!r}: must be [[{table}]] tables of {', '.join(kinds)}")
    made = []
    for entry in value:
        if unknown := [key for key in entry if key not in kinds]:
            raise InputError(f"{where}: {table}.{unknown[0]}: unknown key; [[{table}]] has {', '.join(kinds)}")
        typed = {key: _typed(entry[key], kinds[key], f"{table}.{key}", where) for key in entry}
        made.append(TABLES[table](**typed))
    return tuple(made)


def _check_used(config: Config, key: str, where: str, used: Callable[[str], bool]) -> None:
    if not used(key):
        raise InputError(f"{where}: {key}: this command does not use it")
    for unused, reason in _UNUSED.get(key, ()):
        if unused(config):
            raise InputError(f"{where}: {key}: has no effect, because {reason}; remove one of the two")
