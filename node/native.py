"""The engine's modules as mypyc compiles them (``make native``), in place of their sources.

Results are the same, planning takes less time. What was compiled is used where it was made of the sources that are
here, for a Python of this version, and left alone otherwise. ``COE_ENGINE``, ``python`` or ``native``, asks for one.
"""

from __future__ import annotations

import copyreg
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from node.errors import InputError

VARIABLE = "COE_ENGINE"
ENGINES = ("python", "native")
GROUP = "coe_engine"  # mypyc puts all of them into one library, and names it after this
# What decides, and what is asked each time that something is decided. Not what a deployment is made of, layouts and
# classes of service, say: that is pickled for actors, on machines that may have sources alone.
MODULES = (
    "node.allocator", "node.continuous_lane", "node.dataflow.decode", "node.exchange", "node.hardware.host",
    "node.hardware.sockets", "node.lane", "node.program_lane", "node.runtime.admission",
    "node.runtime.arrivals", "node.runtime.balance", "node.runtime.continuous", "node.runtime.expert_cache",
    "node.runtime.group", "node.runtime.kv_cache", "node.runtime.ledger", "node.runtime.memories",
    "node.runtime.memory", "node.runtime.paging", "node.runtime.policies", "node.runtime.programs",
    "node.runtime.queues", "node.runtime.references", "node.runtime.scheduler",
    "node.runtime.shared_waiting", "node.runtime.stay", "node.runtime.steps", "node.runtime.task",
    "node.runtime.waiting", "node.simulation", "node.stream",
)  # fmt: skip
SOURCES = Path(__file__).parent
FOLDER = SOURCES.parent / "build" / "native"
NOTE = "made-of"
SUFFIX = EXTENSION_SUFFIXES[0]


def made_of() -> str:
    """A hash of all sources of this package and of what a compiled module's name says of Python and machine."""
    return hash_of({SUFFIX: SOURCES}, (".py",))


def hash_of(folders: Mapping[str, Path], suffixes: Sequence[str]) -> str:
    """SHA-256 of all files with these suffixes: where each lies in which of the named folders, and what it holds."""
    digest = hashlib.sha256()
    for name, folder in folders.items():
        digest.update(f"{name}\n".encode())
        for path in sorted(path for path in folder.rglob("*") if path.suffix in suffixes):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def _found() -> str:
    """``none``, ``stale`` or ``fresh``: what there is of compiled modules."""
    try:
        noted = (FOLDER / NOTE).read_text()
    except OSError:
        return "none"
    return "fresh" if noted == made_of() else "stale"


def engine() -> str:
    """Which of ``ENGINES`` this process has."""
    return "native" if any(isinstance(finder, _Finder) for finder in sys.meta_path) else "python"


def install() -> None:
    """Have compiled modules imported from now on, where that is asked for or nothing is, and they are ``fresh``."""
    if os.environ.get(VARIABLE) in (None, "", "native") and _found() == "fresh":
        sys.meta_path.insert(0, _Finder())


def check() -> str:
    """What the user should be told of the engine, or nothing.

    ``InputError`` for one that there is not.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", *ENGINES):
        raise InputError(f"{VARIABLE} = {asked!r} in the environment; allowed: {', '.join(ENGINES)}, or nothing")
    if asked == "python" or _found() == "fresh":
        return ""
    why = "is of other sources or another Python" if _found() == "stale" else "does not exist"
    if asked == "native":
        raise InputError(f"{VARIABLE} = 'native' in the environment: {FOLDER} {why}; make native compiles the engine")
    return "" if _found() == "none" else f"{FOLDER} {why}, so the engine is interpreted; make native compiles it anew"


class _Finder(MetaPathFinder):
    """Finds the modules that were compiled, and the library that they are in."""

    _names = frozenset((*MODULES, f"{GROUP}__mypyc"))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``MetaPathFinder``."""
        if fullname not in self._names:
            return None
        file = str(FOLDER.joinpath(*fullname.split("."))) + SUFFIX
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


def pickled(one: object) -> bytes:
    """A pickle of what may have objects of compiled classes in it, which by themselves cannot be pickled."""
    for module in MODULES:
        for found in vars(sys.modules[module]).values() if module in sys.modules else ():
            if hasattr(found, "__mypyc_attrs__"):
                copyreg.pickle(found, _reduced)  # type: ignore[arg-type]  # of six values, as well as of two or three
    return pickle.dumps(one, protocol=pickle.HIGHEST_PROTOCOL)


def _reduced(one: object) -> tuple[object, ...]:
    """An object whose attributes are put back one by one, for it has no dictionary of them."""
    names: tuple[str, ...] = type(one).__mypyc_attrs__  # type: ignore[attr-defined]
    there = {name: getattr(one, name) for name in names if hasattr(one, name)}
    return _NEW, (type(one),), there, None, None, put


_NEW: Callable[..., object] = copyreg.__newobj__  # type: ignore[attr-defined]


def put(one: object, attributes: Mapping[str, object]) -> None:
    """Give an object its attributes back."""
    for name, value in attributes.items():
        object.__setattr__(one, name, value)
