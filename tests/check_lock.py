"""The lock files are what ``uv`` makes of pyproject.toml, holding the pins that are there. ``--write`` renews them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {
    "requirements.lock": [],
    "requirements-image.lock": ["--extra", "jobs"],
    "requirements-dev.lock": ["--extra", "dev", "--extra", "jobs"],
    # In one environment with the last, so it has its pins.
    "requirements-samda.lock": [
        "--extra",
        "samda",
        "--group",
        "samda-networks",
        "--constraint",
        "requirements-dev.lock",
    ],
}


def compiled(lock: str, extras: list[str], keep_pins: bool) -> str:
    """The text of a lock file; ``keep_pins`` changes only what pyproject.toml forces."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / lock
        if keep_pins and (ROOT / lock).exists():
            output.write_text((ROOT / lock).read_text())
        command = ["uv", "pip", "compile", "--quiet", "--no-header", "--universal", "--python-version", "3.11"]
        subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:], *extras, "pyproject.toml", "-o", str(output)],
            check=True,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        return output.read_text()


def main() -> int:
    """Check, or write with ``--write``."""
    write, stale = "--write" in sys.argv, []
    for lock, extras in LOCKS.items():
        text = compiled(lock, extras, keep_pins=not write)
        if write:
            (ROOT / lock).write_text(text)
        elif (ROOT / lock).read_text() != text:
            stale.append(lock)
    if stale:
        print(f"{', '.join(stale)}: not in step with pyproject.toml; run make lock", file=sys.stderr)
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
