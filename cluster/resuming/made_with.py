"""What made a checkpoint. A pickle says how objects were, not what they mean: that is only in the code that made it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import cluster
import node
from node.errors import InputError
from node.native import VARIABLE, engine, hash_of

PACKAGES = ("numpy", "msgpack", "pyarrow", "jinja2")  # on which pickles depend, or what a run writes
SOURCES = (".py", ".toml", ".html")


def made_with() -> dict[str, str]:
    """The code (a hash of all its files), which engine it ran in, Python and the packages that results depend on."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"code": _code(), "engine": engine(), "python": python, **{name: version(name) for name in PACKAGES}}


def check_made_with(found: Mapping[str, str], where: str) -> None:
    """``InputError`` where something else made the checkpoint than would go on from it."""
    here = made_with()
    if found.get("code") != here["code"]:
        raise InputError(
            f"{where}: other code made it ({found.get('code', 'unknown'):.12}, here {here['code']:.12}); "
            "go on with the checkout that began the run"
        )
    made, own = found.get("engine", "unknown"), here["engine"]
    if made != own:
        raise InputError(f"{where}: made by the engine {made!r}, here is {own!r}; set {VARIABLE}={made} to go on")
    for name, own in here.items():
        if found.get(name) != own:
            raise InputError(
                f"{where}: made with {name} {found.get(name, 'unknown')}, here is {own}; go on with the packages that "
                "began the run"
            )


def _code() -> str:
    return hash_of({one.__name__: Path(str(one.__file__)).parent for one in (cluster, node)}, SOURCES)
