"""The folder of a sweep: what it is, and each point's result from when it is there, so that a killed sweep goes on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cluster.output import check_output, result_folder, write_json
from cluster.sweep.tasks import Found
from node.errors import InputError

DEFINITION, POINTS = "definition.json", "points"


@dataclass(frozen=True)
class SweepFolder:
    """A folder that this process alone writes to."""

    path: Path

    def done(self) -> dict[int, Found]:
        """The results that are there, by number of the point."""
        found = {}
        for file in sorted((self.path / POINTS).glob("[0-9]*.json")):
            with contextlib.suppress(OSError, ValueError):  # what cannot be read is run again
                found[int(file.stem)] = json.loads(file.read_text())
        return found

    def add(self, number: int, found: Found) -> None:
        """Keep a point's result: all of it, or nothing."""
        write_json(self.path / POINTS / f"{number:06}.json", found)


@contextlib.contextmanager
def sweep_folder(path: Path, record: Mapping[str, object], source: str) -> Iterator[SweepFolder]:
    """The folder at ``path`` for the sweep that ``record`` describes and ``source`` holds: new, or as it was left.

    Raises ``InputError`` where the folder is another sweep's, none's, or another process is at work in it.
    """
    new = not path.exists()
    if new:
        check_output(str(path))
        with result_folder(str(path), "sweep") as made:
            (made.temporary / POINTS).mkdir()
            write_json(made.temporary / DEFINITION, record)
    definition, before = _definition(path)
    with definition:
        try:
            fcntl.flock(definition, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"--output {str(path)!r}: another coe sweep is at work in it") from None
        if (changed := _difference(before, json.loads(json.dumps(record)))) is not None:
            raise InputError(
                f"--output {str(path)!r}: holds another sweep than {source} is now: {changed} changed; "
                "name another folder, or remove this one"
            )
        for left in (path / POINTS).glob(".*"):  # of a write that was killed
            left.unlink()
        folder = SweepFolder(path)
        try:
            yield folder
        except InputError:
            if new and not folder.done():
                shutil.rmtree(path)
            raise


def _definition(path: Path) -> tuple[TextIO, Mapping[str, object]]:
    """The file, open, and what it says; ``InputError`` where there is none."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((path / DEFINITION).open())
            found = json.load(file)
        except (OSError, ValueError):
            raise InputError(f"--output {str(path)!r}: exists already and is no sweep's; name another folder") from None
        stack.pop_all()
    return file, found


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> str | None:
    """The first key at which two records differ; None where they do not."""
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if old != new:
            inner = _difference(old, new) if isinstance(old, dict) and isinstance(new, dict) else None
            return inner or key
    return None
