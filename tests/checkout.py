"""A checkout of its own for whoever uploads one: in this one other tests write while Ray reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE = (".git", ".venv", ".hypothesis", ".mypy_cache", "samba_coe.egg-info", "cluster/__pycache__")


def checkout(folder: Path) -> Path:
    """``folder`` as a copy of all that git tracks or would add, and of what lies beside it in use, a file each."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():  # or it is deleted, and not yet for git
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name in BESIDE:
        (folder / name).mkdir()
        (folder / name / "not-to-be-uploaded").touch()
    return folder
