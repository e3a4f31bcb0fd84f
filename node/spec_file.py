"""Reading spec files: a machine is one TOML file that may say only what differs from its ``base``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from node.errors import InputError
from node.spec import KINDS, OPTIONAL_TABLES, TABLES, Figure, Machine, paths
from node.units import parse, whole

MOST_SOCKETS = 1024
SPECS = Path(__file__).parent / "specs"


def machine_names() -> list[str]:
    """The built-in machines."""
    return sorted(path.stem for path in SPECS.glob("*.toml"))


def read_toml(path: Path) -> dict[str, object]:
    """A TOML file as a dict; ``InputError`` where it is missing, unreadable or malformed."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:  # ValueError: no TOML, no UTF-8, or a number too long to read
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read as TOML: {reason}") from None


def load_machine(name: str, overrides: Mapping[str, object] | None = None) -> Machine:
    """The machine of a built-in ``name`` or a ``.toml`` path, with ``overrides`` (path -> as in ``read_figure``).

    Raises ``InputError`` for an unknown machine or path, a bad quantity or a missing number.
    """
    names, figures = _read(name, ())
    for path, value in (overrides or {}).items():
        figures[path] = read_figure(path, value, "--set", f"machine.{path}")
    label = name if name.endswith(".toml") else f"machine {name!r}"
    _link_of(figures, label)
    return _build(names, figures, label)


def _read(name: str, seen: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Figure]]:
    """Names and figures of a spec, its bases first; ``seen`` are the files that led here."""
    path = Path(name) if name.endswith(".toml") else SPECS / f"{name}.toml"
    if not name.endswith(".toml") and name not in machine_names():
        raise InputError(
            f"machine {name!r}: no such machine; there are {', '.join(machine_names())}, "
            "or give the path of a .toml file"
        )
    here = str(path.resolve())
    if here in seen:
        raise InputError(f"{path}: its base leads back to itself: {' -> '.join((*seen, here))}")
    tree = read_toml(path)
    base = tree.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise InputError(f"{path}: base = {base!r}: must be the name of a machine or the path of a .toml file")
    if base and base.endswith(".toml"):
        base = str(path.parent / base)
    _, figures = _read(base, (*seen, here)) if base else ({}, {})
    names = {key: str(tree.pop(key, path.stem)) for key in ("name", "title")}
    for key, value in tree.items():
        for leaf, content in _leaves(key, value):
            figures[leaf] = read_figure(leaf, content, path.name, f"{path}: {leaf}")
    return names, figures


def _leaves(key: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict) and "value" not in value and (value or key in TABLES):
        return [(f"{key}.{inner}", content) for inner, content in value.items()]
    return [(key, value)]


def read_figure(path: str, content: object, origin: str, where: str) -> Figure:
    """The number at ``path``: a table of value, kind and source, or a bare value, which is assumed, by ``origin``.

    A table may have a range too: a list of the least and the greatest that the value may be. Raises ``InputError`` that
    begins with ``where``.
    """
    if path not in paths():
        raise InputError(f"{where}: unknown key; a machine has {', '.join(paths())}")
    entry = content if isinstance(content, dict) else {"value": content, "kind": "assumed", "source": origin}
    if set(entry) - {"range"} != {"value", "kind", "source"} or entry["kind"] not in KINDS:
        raise InputError(
            f"{where} = {content!r}: needs exactly value, kind ({', '.join(KINDS)}) and source, or a bare value"
        )
    number = _convert(path, entry["value"], where)
    return Figure(path, str(entry["value"]), entry["kind"], str(entry["source"]), _range(path, number, entry, where))


def _range(path: str, number: int | float | str, entry: Mapping[str, object], where: str) -> tuple[str, str] | None:
    if "range" not in entry:
        return None
    ends = entry["range"]
    if isinstance(ends, list | tuple) and len(ends) == 2 and not isinstance(number, str):
        low, high = (_convert(path, end, f"{where}: range") for end in ends)
        if not isinstance(low, str) and not isinstance(high, str) and low <= number <= high:
            return str(ends[0]), str(ends[1])
    raise InputError(f"{where}: range = {ends!r}: must be [least, greatest] around the value {entry['value']!r}")


def _convert(path: str, value: object, where: str) -> int | float | str:
    dimension, _ = paths()[path]
    if "|" in dimension:
        if value not in dimension.split("|"):
            raise InputError(f"{where} = {value!r}: must be one of {', '.join(dimension.split('|'))}")
        return str(value)
    if not isinstance(value, str | int | float):
        raise InputError(f"{where} = {value!r}: must be a quantity in {dimension}")
    number = whole(value, dimension, where) if dimension in ("count", "bytes") else parse(value, dimension, where)
    if path == "sockets" and number > MOST_SOCKETS:
        raise InputError(f"{where} = {value!r}: must be at most {MOST_SOCKETS:,}")
    if number == 0 and dimension != "s":
        raise InputError(f"{where} = {value!r}: must be above zero")
    if dimension == "fraction" and number > 1:
        raise InputError(f"{where} = {value!r}: a fraction is at most 1")
    return number


def _link_of(figures: dict[str, Figure], label: str) -> None:
    """DDR is reached at its own bandwidth or over a host link: never both, never neither."""
    direct = {"ddr.bandwidth", "ddr.efficiency"} & set(figures)
    hosted = {path for path in figures if path.startswith("host_link.")}
    if bool(direct) == bool(hosted):
        raise InputError(
            f"{label}: DDR needs either ddr.bandwidth and ddr.efficiency (direct-attached) or host_link.bandwidth "
            f"and host_link.sharing (host memory); given: {', '.join(sorted(direct | hosted)) or 'none'}"
        )
    needed = {"ddr.bandwidth", "ddr.efficiency"} if direct else {"host_link.bandwidth", "host_link.sharing"}
    if missing := needed - set(figures):
        raise InputError(f"{label}: {', '.join(sorted(missing))} is missing")


def _build(names: dict[str, str], figures: dict[str, Figure], label: str) -> Machine:
    known = paths()
    missing = [path for path, (_, optional) in known.items() if not optional and path not in figures]
    if missing:
        raise InputError(f"{label}: {', '.join(missing)} missing; a machine with no base says every number")
    for table in OPTIONAL_TABLES:
        here = [path for path in figures if path.startswith(f"{table}.")]
        lacking = [path for path in known if path.startswith(f"{table}.") and path not in figures]
        if here and lacking and table != "host_link":
            raise InputError(f"{label}: {', '.join(lacking)} is missing beside {', '.join(here)}")
    values = {path: _convert(path, figure.value, f"machine.{path}") for path, figure in figures.items()}
    tables: dict[str, object] = {}
    for table, kind in TABLES.items():
        if table in OPTIONAL_TABLES and not any(path.startswith(f"{table}.") for path in values):
            tables[table] = None
            continue
        tables[table] = kind(**{entry.name: values.get(f"{table}.{entry.name}") for entry in fields(kind)})
    ordered = tuple(figures[path] for path in known if path in figures)
    own = {"sockets": int(values["sockets"]), "cost_per_hour": values.get("cost_per_hour")}
    return Machine(**names, **own, figures=ordered, **tables)  # type: ignore[arg-type]
