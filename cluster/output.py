"""Result folders: all there, or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from node.errors import InputError

RUNS = Path("runs")


def folder_for(output: str | None, command: str) -> Path:
    """The folder to write to: the one asked for, which must not exist, or a new one under ``runs/``."""
    if output is not None:
        path = Path(output)
        if path.exists() or path.is_symlink():
            raise InputError(f"--output {output!r}: exists already; name a folder that does not, or remove it")
        return path
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{command}"
    names = (RUNS / (stem if n == 0 else f"{stem}-{n}") for n in range(1000))
    return next(path for path in names if not path.exists())


@contextlib.contextmanager
def result_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that becomes ``path`` when the block ends well, and is gone otherwise."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"--output {str(path)!r}: cannot be made: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            raise InputError(f"--output {str(path)!r}: came into being while the command ran; nothing was written")
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write JSON for people and programs: to a temporary name, then renamed."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text to a temporary name, then rename it; ``InputError`` where that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
